"use strict";

// Tables that can be sorted by a click on a head, and filtered by what their columns say.

const tables = [...document.querySelectorAll("table.data")];
const filters = [...document.querySelectorAll("select[data-filter]")];

const heads = (table) => [...table.tHead.rows[table.tHead.rows.length - 1].cells];

// A number where the cell has one, else its text; nothing for a gap.
function content(cell) {
  if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
  const text = cell.textContent.trim();
  return text === "" || text === "-" ? null : text;
}

function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), undefined, { numeric: true });
}

function sort(table, head) {
  const column = head.cellIndex;
  const first = head.dataset.better === "higher" ? "descending" : "ascending";
  const second = first === "ascending" ? "descending" : "ascending";
  const order = head.getAttribute("aria-sort") === first ? second : first;
  const sign = order === "ascending" ? 1 : -1;
  const rows = [...table.tBodies[0].rows].map((row) => [content(row.cells[column]), row]);
  rows.sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null); // gaps stay below
    return sign * compare(a, b);
  });
  for (const other of heads(table)) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", order);
  table.tBodies[0].append(...rows.map(([, row]) => row));
}

function filter() {
  const wanted = filters.filter((one) => one.value).map((one) => [one.dataset.filter, one.value]);
  for (const table of tables) {
    const names = heads(table).map((head) => head.dataset.name);
    const tests = wanted
      .map(([name, value]) => [names.indexOf(name), value])
      .filter(([column]) => column >= 0);
    for (const row of table.tBodies[0].rows) {
      row.hidden = !tests.every(([column, value]) => said(row.cells[column]) === value);
    }
  }
  count();
}

function said(cell) {
  return cell.dataset.text ?? cell.textContent; // the text without its mark
}

function count() {
  const place = document.querySelector(".count");
  if (!place || !tables.length) return;
  const rows = [...tables[0].tBodies[0].rows];
  place.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} rows`;
}

for (const table of tables) {
  for (const head of heads(table)) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(table, head));
    head.append(button);
  }
}

for (const one of filters) one.addEventListener("change", filter);

document.querySelector("[data-seeds]")?.addEventListener("click", (event) => {
  const all = [...document.querySelectorAll("td details")];
  const open = !all.every((one) => one.open);
  for (const one of all) one.open = open;
  event.target.setAttribute("aria-pressed", String(open));
});

document.querySelector("[data-reset]")?.addEventListener("click", () => {
  for (const one of filters) one.value = "";
  filter();
});

filter();
