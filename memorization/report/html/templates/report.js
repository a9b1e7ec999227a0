"use strict";
(function () {
  const $ = (id) => document.getElementById(id);
  const root = document.documentElement;

  // Theme: the system's until the button says otherwise.
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const theme = $("theme");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
  const nameTheme = () => { theme.textContent = isDark() ? "Light" : "Dark"; };
  theme.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; nameTheme(); });
  dark.addEventListener("change", nameTheme);
  nameTheme();
  theme.hidden = false;

  // Tokens: one stop of the Tab key a record; arrows go on from there.
  for (const box of document.querySelectorAll(".tokens")) {
    const tokens = Array.from(box.querySelectorAll(".tok"));
    const detail = box.parentElement.querySelector(".detail");
    const show = (token) => { detail.textContent = token.title; };
    const focus = (k) => {
      const at = Math.min(Math.max(k, 0), tokens.length - 1);
      tokens.forEach((token, i) => { token.tabIndex = i === at ? 0 : -1; });
      tokens[at].focus();
    };
    tokens.forEach((token, k) => {
      token.tabIndex = k ? -1 : 0;
      token.addEventListener("focus", () => show(token));
      token.addEventListener("mouseenter", () => show(token));
    });
    box.addEventListener("keydown", (event) => {
      const k = tokens.indexOf(document.activeElement);
      const to = { ArrowRight: k + 1, ArrowDown: k + 1, ArrowLeft: k - 1, ArrowUp: k - 1, Home: 0, End: tokens.length }[event.key];
      if (k < 0 || to === undefined) return;
      event.preventDefault();
      focus(to);
    });
  }

  // Table: all rows are data, and a page of them stands in the document.
  const data = JSON.parse($("data").textContent);
  const heads = Array.from(document.querySelectorAll("#table th"));
  const names = heads.map((head) => head.dataset.name);
  const body = document.querySelector("#table tbody");
  const texts = data.kinds.map((kind, k) => (kind === "text" || names[k] === "sample" ? k : -1)).filter((k) => k >= 0);
  const searched = data.rows.map((row) => texts.map((k) => row[k]).join("\n").toLowerCase());
  let order = names.indexOf("signed_bits"), down = true, first = 0, chosen = [];

  const digits = (value, least, most) => {
    const told = value.toLocaleString("en-US", { minimumFractionDigits: least, maximumFractionDigits: most });
    return (/[1-9]/.test(told) ? told : told.replace("-", "")).replace("-", "\u2212");
  };
  const chance = (value) => {
    if (value === 0) return "0";
    return (value < 0.001 ? value.toExponential(0) : value.toPrecision(2)).replace("-", "\u2212");
  };
  const words = (value, kind) => {
    if (value === null) return kind === "text" ? "" : "unknown";
    if (typeof value === "boolean") return value ? "yes" : "no";
    if (typeof value === "string") return value;
    if (kind === "chance") return chance(value);
    if (kind === "bits") return digits(value, 1, 1);
    return kind === "number" && !Number.isInteger(value) ? digits(value, 3, 3) : digits(value, 0, 0);
  };
  const compare = (a, b) => {
    if (typeof a === "string" && typeof b === "string") return a < b ? -1 : a > b ? 1 : 0;
    const [x, y] = [a, b].map((one) => (one === "never" ? Infinity : Number(one)));
    return x < y ? -1 : x > y ? 1 : 0;
  };
  const choose = () => {
    const wanted = $("find").value.trim().toLowerCase();
    const flags = ["memorized", "extracted"].filter((name) => $("only-" + name).checked).map((name) => names.indexOf(name));
    chosen = [];
    data.rows.forEach((row, k) => {
      if (flags.every((flag) => flag >= 0 && row[flag] === true) && searched[k].includes(wanted)) chosen.push(k);
    });
    const side = down ? -1 : 1;
    chosen.sort((i, k) => {
      const [a, b] = [data.rows[i][order], data.rows[k][order]];
      if (a === null || b === null) return (a === null) - (b === null) || i - k; // the unknown comes last
      return side * compare(a, b) || i - k;
    });
    first = 0;
    draw();
  };
  const draw = () => {
    const rows = chosen.slice(first, first + data.most).map((k) => {
      const line = document.createElement("tr");
      data.rows[k].forEach((value, column) => {
        const cell = line.insertCell();
        const told = words(value, data.kinds[column]);
        cell.className = data.kinds[column] + (told === "unknown" ? " unknown" : "");
        cell.appendChild(document.createElement("bdi")).textContent = told;
      });
      return line;
    });
    body.replaceChildren(...rows);
    const last = first + rows.length;
    $("where").textContent = rows.length
      ? `${digits(first + 1, 0, 0)} to ${digits(last, 0, 0)} of ${digits(chosen.length, 0, 0)} records`
      : "no such record";
    $("previous").disabled = first === 0;
    $("next").disabled = last >= chosen.length;
  };
  heads.forEach((head, k) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      down = order === k ? !down : data.kinds[k] !== "text" && names[k] !== "sample";
      order = k;
      heads.forEach((one) => one.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      choose();
    });
  });
  $("find").addEventListener("input", choose);
  for (const name of ["memorized", "extracted"]) {
    $("only-" + name).addEventListener("change", choose);
    $("only-" + name).parentElement.hidden = names.indexOf(name) < 0;
  }
  $("filter").addEventListener("submit", (event) => event.preventDefault());
  $("previous").addEventListener("click", () => { first -= data.most; draw(); });
  $("next").addEventListener("click", () => { first += data.most; draw(); });
  $("filter").hidden = false;
  $("pages").hidden = false;
  choose();
})();
