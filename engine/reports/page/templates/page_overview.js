// The list of studies: totals, filters, sorting.

const ROWS_AT_FIRST = 300;

const COLUMNS = [
  { key: "number", name: "No.", value: (study) => study.number },
  { key: "path", name: "Study", value: (study) => study.path },
  { key: "burden", name: "Levels C2/3 to C7/T1", value: (study) => sumOf(study), descending: true },
  { key: "worst", name: "Worst", value: (study) => (allShown(study) ? study.worst : null), descending: true },
  { key: "ratio", name: "Lowest ratio", value: (study) => (allShown(study) ? study.ratio : null) },
  { key: "confidence", name: "Confidence", value: (study) => (allShown(study) ? study.confidence : null) },
  { key: "flags", name: "Flags", value: (study) => study.flags.length, descending: true },
  { key: "reviewed", name: "Reviewed", value: (study) => study.levels.filter(isReviewed).length },
];

const list = { sort: "number", ascending: true, rows: new Map(), matching: new Map(), shown: [], limit: ROWS_AT_FIRST };

function sumOf(study) {
  return allShown(study) ? study.burden : null;
}

function allShown(study) {
  return study.levels.every(isShown);
}

function startOverview() {
  const head = COLUMNS.map((column) => make("th", { scope: "col", role: "columnheader", class: `c-${column.key}` },
    make("button", { type: "button", text: column.name, on: { click: () => sortBy(column) } })));
  byId("studies-head").replaceChildren(...head);
  const grades = [0, 1, 2, 3, null].map((grade) => make("button", {
    type: "button", class: `toggle ${gradeClass(grade)}`, "aria-pressed": "false", "data-grade": grade ?? "none",
    text: grade ?? "–", "aria-label": grade === null ? "No grade" : `Grade ${grade}, ${GRADE_WORDS[grade]}`,
    on: { click: (event) => { press(event.currentTarget); filter(); } },
  }));
  byId("filter-grades").replaceChildren(...grades);
  const flags = [...new Set(studies.flatMap((study) => study.flags))].sort();
  byId("filter-flag").replaceChildren(make("option", { value: "", text: "Any or none" }), ...flags.map((flag) =>
    make("option", { value: flag, text: `${meaning(flag)} (${studies.filter((study) => study.flags.includes(flag)).length})` })));
  const form = byId("filters");
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => {
    for (const button of byId("filter-grades").children) button.setAttribute("aria-pressed", "false");
    setTimeout(filter);
  });
  byId("show-more").addEventListener("click", () => { list.limit = Infinity; showRows(); });
  review.listeners.push((level) => {
    // One decision changes one row; options and imports may change all.
    if (level) list.rows.delete(level.study);
    else list.rows.clear();
    list.stale = true;
  });
  if (window.matchMedia("(max-width: 900px)").matches) byId("plots-details").open = false;
  filter();
}

function press(button) {
  button.setAttribute("aria-pressed", button.getAttribute("aria-pressed") === "true" ? "false" : "true");
}

/** Read the filters and show what they leave. A study is shown if at least one of its levels matches. */
function filter() {
  const grades = [...byId("filter-grades").children].filter((button) => button.getAttribute("aria-pressed") === "true")
    .map((button) => (button.dataset.grade === "none" ? null : Number(button.dataset.grade)));
  const wanted = {
    grades,
    flag: byId("filter-flag").value,
    low: bound("filter-low", 0),
    high: bound("filter-high", 1),
    review: review.on ? byId("filter-review").value : "",
  };
  const words = byId("filter-text").value.toLowerCase().split(/\s+/).filter(Boolean);
  list.matching = new Map();
  for (const study of studies) {
    // What a blinded reader must not see cannot be searched for either.
    const text = allShown(study) ? study.textWords : "";
    if (!words.every((word) => study.words.includes(word) || text.includes(word))) continue;
    const levels = study.levels.filter((level) => matches(level, wanted));
    if (levels.length) list.matching.set(study, new Set(levels));
  }
  list.limit = ROWS_AT_FIRST;
  showRows();
}

function bound(id, otherwise) {
  const value = byId(id).valueAsNumber;
  return Number.isNaN(value) ? otherwise : value;
}

function matches(level, { grades, flag, low, high, review: state }) {
  if (grades.length && (!isShown(level) || !grades.includes(level.grade))) return false;
  if (flag && !level.flags.includes(flag)) return false;
  // A level without a grade has a confidence of its point alone: it is kept unless the range was narrowed.
  const narrowed = low > 0 || high < 1;
  if (narrowed && (!isShown(level) || level.grade === null || level.confidence < low || level.confidence > high)) return false;
  if (state === "open") return !isReviewed(level);
  if (state === "done") return isReviewed(level);
  if (state === "changed") return isReviewed(level) && decisionOn(level).decision !== "accept";
  return true;
}

function sortBy(column) {
  if (list.sort === column.key) list.ascending = !list.ascending;
  else {
    list.sort = column.key;
    list.ascending = !column.descending;
  }
  showRows();
}

function sorted(found) {
  const { value } = COLUMNS.find((column) => column.key === list.sort);
  const sign = list.ascending ? 1 : -1;
  const compare = new Intl.Collator("en", { numeric: true }).compare;
  return found.map((study) => [value(study), study]).sort(([a, one], [b, other]) => {
    // What is not known comes last either way.
    if (a === null || b === null) return (a === null) - (b === null) || one.number - other.number;
    return sign * (typeof a === "string" ? compare(a, b) : a - b) || one.number - other.number;
  }).map(([, study]) => study);
}

function showRows() {
  list.stale = false;
  list.shown = sorted([...list.matching.keys()]);
  COLUMNS.forEach((column, index) => {
    const cell = byId("studies-head").children[index];
    if (column.key === list.sort) cell.setAttribute("aria-sort", list.ascending ? "ascending" : "descending");
    else cell.removeAttribute("aria-sort");
  });
  const rows = list.shown.slice(0, list.limit).map(rowOf);
  byId("studies-body").replaceChildren(...rows);
  const more = byId("show-more");
  more.hidden = list.shown.length <= list.limit;
  more.textContent = `Show all ${list.shown.length} studies`;
  const levels = list.shown.flatMap((study) => [...list.matching.get(study)]);
  byId("shown-count").textContent = list.shown.length === studies.length && levels.length === studies.length * LEVELS.length
    ? `all ${studies.length}` : `${list.shown.length} of ${studies.length}, with ${count(levels.length, "matching level")}`;
  showTiles();
  showPlots(levels);
}

function rowOf(study) {
  let row = list.rows.get(study);
  if (!row) {
    row = newRow(study);
    list.rows.set(study, row);
  }
  const matching = list.matching.get(study);
  row.querySelectorAll(".strip > span").forEach((cell, index) => cell.classList.toggle("pale", !matching.has(study.levels[index])));
  return row;
}

function newRow(study) {
  const open = allShown(study);
  const cell = (key, ...children) => make("td", { role: "cell", class: `c-${key}` }, ...children);
  const strip = study.levels.map((level) => {
    const shown = isShown(level);
    const made = isReviewed(level) ? decisionOn(level) : null;
    const grade = made ? made.grade : level.grade;
    const words = `${level.level} ${shown ? gradeWords(level) : "hidden"}${made ? `, ${decisionWords(level)}` : ""}`;
    return make("span", {
      class: `chip ${shown ? gradeClass(grade) : "secret"}${made ? " reviewed" : ""}`, title: words, role: "img",
      "aria-label": words, text: shown ? grade ?? (made ? "×" : "–") : "?",
    });
  });
  const done = study.levels.filter(isReviewed).length;
  return make("tr", { role: "row", on: { click: (event) => { if (!event.target.closest("a")) openStudy(study); } } },
    cell("number", String(study.number)),
    cell("path", make("a", { href: hashOf(study.levels[0]), class: "path", title: study.path, text: study.path || `Study ${study.number}` }),
      study.patient_id ? make("span", { class: "patient", text: ` ${study.patient_id}` }) : null),
    cell("burden", make("span", { class: "strip" }, strip)),
    cell("worst", open ? chip(study.worst, study.worst === null ? "no grade" : `grade ${study.worst}`) : "?"),
    cell("ratio", open ? number(study.ratio) : "?"),
    cell("confidence", open ? number(study.confidence) : "?"),
    cell("flags", study.flags.length ? make("span", { title: study.flags.map(meaning).join("\n"), text: study.flags.length }) : ""),
    cell("reviewed", done ? `${done} of ${study.levels.length}` : ""));
}

function gradeWords(level) {
  return level.grade === null ? "not graded" : `Kang grade ${level.grade}`;
}

function showTiles() {
  const levels = studies.flatMap((study) => study.levels);
  const graded = levels.filter((level) => level.grade !== null);
  const measured = levels.filter((level) => level.ratio !== null);
  const compared = levels.filter((level) => level.healthy?.compression_ratio_z != null);
  const low = compared.filter((level) => level.healthy.compression_ratio_z < -HEALTHY_Z);
  const hidden = levels.some((level) => !isShown(level));
  const tile = (value, name, note = "") => make("div", { class: "tile" }, make("strong", { text: value }), make("span", { text: name }), note ? make("small", { text: note }) : null);
  const tiles = [
    tile(studies.length, studies.length === 1 ? "study graded" : "studies graded"),
    tile(graded.length, "levels graded", `of ${levels.length}`),
    tile(measured.length, "levels measured", `of ${levels.length}`),
  ];
  if (compared.length && !hidden) tiles.push(tile(low.length, "ratios below the healthy range", `of ${compared.length}`));
  if (!hidden) tiles.push(worstTile());
  byId("tiles").replaceChildren(...tiles);
}

function worstTile() {
  const amounts = [0, 1, 2, 3, null].map((grade) => [grade, studies.filter((study) => study.worst === grade).length]);
  const words = amounts.filter(([, amount]) => amount).map(([grade, amount]) => `${grade ?? "none"}: ${count(amount, "study", "studies")}`).join(", ");
  const svg = draw("svg", { viewBox: "0 0 300 26", preserveAspectRatio: "none", class: "worst", role: "img", "aria-label": `Worst grade of a study. ${words}` });
  const labels = [];
  let x = 0;
  for (const [grade, amount] of amounts) {
    if (!amount) continue;
    const length = (amount / studies.length) * 300;
    svg.append(draw("rect", { x, y: 0, width: Math.max(length - 1, 0.5), height: 26, class: `fill ${gradeClass(grade)}` }));
    labels.push(make("li", {}, chip(grade), ` ${amount}`));
    x += length;
  }
  return make("div", { class: "tile wide" }, make("span", { text: "Worst grade by study" }), svg, make("ul", { class: "legend" }, labels));
}
