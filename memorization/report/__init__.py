"""Pictures and pages of results; matplotlib loads when a picture is drawn."""
