"""An audit as one page, `html_of`, and as Markdown, `markdown_of`. The page loads nothing."""

from memorization.report.html.page import html_of, markdown_of, write_report

__all__ = ["html_of", "markdown_of", "write_report"]
