// The table of all rows: heads that sort, a filter by words, and one by ratio.

for (const part of document.querySelectorAll(".needs-script")) part.hidden = false;

{
  const table = document.getElementById("rows");
  const heads = [...table.tHead.rows[0].cells];
  const rows = [...table.tBodies[0].rows];
  const words = document.getElementById("row-filter");
  const ratio = document.getElementById("row-ratio");
  const ratioColumn = heads.findIndex((head) => head.textContent.trim() === "r");

  const key = (row, column) => row.cells[column].dataset.key;

  const compare = (a, b, numeric) => {
    if (a === undefined || b === undefined) return 0;
    return numeric ? a - b : a.localeCompare(b, "en", { numeric: true });
  };

  const sort = (column) => {
    const head = heads[column];
    const numeric = head.classList.contains("number");
    const down = head.ariaSort ? head.ariaSort === "ascending" : numeric; // of numbers the largest first
    for (const other of heads) other.ariaSort = null;
    head.ariaSort = down ? "descending" : "ascending";
    const sorted = rows.toSorted((one, two) => {
      const [a, b] = [key(one, column), key(two, column)];
      if ((a === undefined) !== (b === undefined)) return a === undefined ? 1 : -1; // missing is last either way
      return (down ? -1 : 1) * compare(a, b, numeric || !Number.isNaN(Number(a)));
    });
    table.tBodies[0].append(...sorted);
  };

  const filter = () => {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden =
        !wanted.every((word) => text.includes(word)) || (ratio.value !== "" && key(row, ratioColumn) !== ratio.value);
      shown += !row.hidden;
    }
    document.getElementById("row-count").textContent = `${shown} of ${rows.length} rows`;
  };

  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.textContent = head.textContent;
    button.addEventListener("click", () => sort(column));
    head.replaceChildren(button);
  });
  for (const value of [...new Set(rows.map((row) => key(row, ratioColumn)))].sort((a, b) => b - a)) {
    ratio.append(new Option(String(Number(value)), value));
  }
  words.addEventListener("input", filter);
  ratio.addEventListener("change", filter);
  filter();
}
