"use strict";

// Sort a table by a column: numbers by value (data-v), texts as they read; an empty value goes last either way.
function sortBy(th) {
  const table = th.closest("table");
  const column = [...th.parentNode.children].indexOf(th);
  const up = th.getAttribute("aria-sort") !== "ascending";
  for (const other of th.parentNode.children) other.removeAttribute("aria-sort");
  th.setAttribute("aria-sort", up ? "ascending" : "descending");
  const body = table.tBodies[0];
  const rows = [...body.rows].filter((row) => !row.classList.contains("detail"));
  const entries = rows.map((row) => {
    const cell = row.cells[column];
    const next = row.nextElementSibling;
    const detail = next && next.classList.contains("detail") ? next : null;
    return { row, detail, value: cell.dataset.v === undefined ? cell.textContent.trim() : cell.dataset.v };
  });
  const collator = new Intl.Collator("en", { numeric: true });
  entries.sort((a, b) => {
    if (a.value === "" || b.value === "") return (a.value === "") - (b.value === "");
    const x = Number(a.value), y = Number(b.value);
    const order = Number.isNaN(x) || Number.isNaN(y) ? collator.compare(a.value, b.value) : x - y;
    return up ? order : -order;
  });
  for (const entry of entries) {
    body.append(entry.row);
    if (entry.detail) body.append(entry.detail);
  }
}

function toggle(row) {
  const open = row.classList.toggle("open");
  row.nextElementSibling.hidden = !open;
}

function filter(input) {
  const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const row of document.querySelectorAll("tr.cell")) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every((word) => text.includes(word));
    row.nextElementSibling.hidden = row.hidden || !row.classList.contains("open");
    shown += !row.hidden;
  }
  document.getElementById("shown").textContent = shown;
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("th button");
  const row = event.target.closest("tr.cell");
  if (button) sortBy(button.parentNode);
  else if (row && !getSelection().toString()) toggle(row);
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && event.target.matches("tr.cell")) toggle(event.target);
});
document.addEventListener("input", (event) => {
  if (event.target.id === "filter") filter(event.target);
});
