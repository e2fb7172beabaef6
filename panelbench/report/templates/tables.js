// Tables can be sorted by their headings and searched; without this script they are as they are.
"use strict";
(() => {
  const number = (text) => {
    const found = text.replace(/(\d)[,\u202f](?=\d{3}(\D|$))/g, "$1").replace("−", "-").match(/^[-+]?\d*\.?\d+(e[-+]?\d+)?/i);
    return found ? Number(found[0]) : NaN;
  };
  const value = (row, column) => {
    const cell = row.cells[column];
    return ((cell.querySelector("span") || cell).textContent || "").trim();
  };
  const compare = (a, b) => {
    const x = number(a), y = number(b);
    if (!Number.isNaN(x) && !Number.isNaN(y)) return x - y || a.localeCompare(b);
    return a.localeCompare(b, undefined, { numeric: true });
  };
  const empty = (text) => text === "" || text === "–";
  const sortBy = (table, head, column) => {
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of table.querySelectorAll("th[aria-sort]")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => [value(row, column), row]);
    // What is empty stays below, whichever way the others go.
    rows.sort(([a], [b]) => empty(a) - empty(b) || (empty(a) ? 0 : (down ? -1 : 1) * compare(a, b)));
    body.append(...rows.map(([, row]) => row));
  };
  const searchable = (table, tools) => {
    const box = document.createElement("input");
    const count = document.createElement("span");
    box.type = "search";
    box.placeholder = "search";
    box.setAttribute("aria-label", "search this table");
    box.addEventListener("input", () => {
      const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
      let left = 0;
      for (const row of table.tBodies[0].rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
        left += row.hidden ? 0 : 1;
      }
      count.textContent = words.length ? `${left} of ${table.tBodies[0].rows.length}` : "";
    });
    tools.prepend(box, count);
  };
  for (const table of document.querySelectorAll("table.sorted")) {
    const rows = table.tBodies[0].rows.length;
    if (rows > 1) {
      const heads = table.tHead.rows[table.tHead.rows.length - 1].cells;
      [...heads].forEach((head, column) => {
        head.tabIndex = 0;
        head.title = "sort";
        head.addEventListener("click", () => sortBy(table, head, column));
        head.addEventListener("keydown", (event) => {
          if (event.key !== "Enter" && event.key !== " ") return;
          event.preventDefault();
          sortBy(table, head, column);
        });
      });
    }
    const tools = table.closest("figure").querySelector(".tools");
    if (tools && rows > 7) searchable(table, tools);
  }
  for (const image of document.querySelectorAll(".picture img")) {
    const link = document.createElement("a");
    link.href = image.src;
    link.download = (image.alt || "figure").slice(0, 60) + ".svg";
    link.textContent = "SVG";
    image.closest("figure").querySelector("figcaption").append(" ", link);
  }
})();
