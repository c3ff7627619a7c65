"use strict";
// What all pages have: light and dark, tables that sort and filter. Without it everything is there, in its first order.
const find = (selector, within = document) => within.querySelector(selector);
const every = (selector, within = document) => [...within.querySelectorAll(selector)];
const compare = new Intl.Collator(undefined, { numeric: true }).compare;

for (const part of every(".scripted")) part.hidden = false;

const themes = [];
{
  const root = document.documentElement;
  const button = find("#theme");
  const prefers = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ?? (prefers.matches ? "dark" : "light")) === "dark";
  const tell = () => {
    button.textContent = isDark() ? "Light" : "Dark";
    button.setAttribute("aria-label", isDark() ? "Change to light colours" : "Change to dark colours");
    for (const changed of themes) changed();
  };
  button.hidden = false;
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    tell();
  });
  prefers.addEventListener("change", tell);
  tell();
}

function valueOf(row, column, kind) {
  const cell = row.cells[column];
  const text = cell.dataset.value ?? cell.textContent.trim();
  if (kind === "text") return text;
  const number = Number.parseFloat(text.replaceAll(",", ""));
  return Number.isNaN(number) ? null : number;
}

function sort(table, heading) {
  const ascending = heading.getAttribute("aria-sort")
    ? heading.getAttribute("aria-sort") !== "ascending"
    : heading.dataset.sort === "text";
  const column = heading.cellIndex;
  const kind = heading.dataset.sort;
  for (const other of every("th[aria-sort]", table)) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => [valueOf(row, column, kind), row]);
  rows.sort(([one], [other]) => {
    if (one === null || other === null) return (one === null) - (other === null); // what is not known stands last
    const order = kind === "text" ? compare(one, other) : one - other;
    return ascending ? order : -order;
  });
  body.append(...rows.map(([, row]) => row));
}

for (const table of every("table.sortable")) {
  for (const heading of every("th[data-sort]", table)) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = heading.textContent;
    button.addEventListener("click", () => sort(table, heading));
    heading.replaceChildren(button);
  }
}

for (const field of every("input[data-filters]")) {
  const table = document.getElementById(field.dataset.filters);
  const says = document.getElementById(table.dataset.count);
  field.addEventListener("input", () => {
    const words = field.value.trim().toLowerCase();
    let shown = 0;
    for (const row of table.tBodies[0].rows) {
      row.hidden = !row.cells[0].textContent.toLowerCase().includes(words);
      shown += !row.hidden;
    }
    says.textContent = words ? `${shown.toLocaleString("en")} found` : "";
  });
}
