// The view of one study.

const view = { level: null, queue: [], overlay: true, large: false };

function hashOf(level) {
  return `#${level.study.number}/${level.level.replace("/", "-")}`;
}

function openStudy(study) {
  const matching = list.matching.get(study);
  location.hash = hashOf(study.levels.find((level) => matching?.has(level)) || study.levels[0]);
}

/** Show a level without adding a page to the browser's history. */
function select(level) {
  history.replaceState(null, "", hashOf(level));
  showStudy(level);
}

/** The levels that j and k go through: those that the filters left, in the order of the list. */
function startQueue() {
  view.queue = list.shown.flatMap((study) => study.levels.filter((level) => list.matching.get(study).has(level)));
}

/** Return the next level of the queue in a direction, or null at its end. */
function neighbour(level, direction) {
  const at = view.queue.indexOf(level);
  if (at >= 0) return view.queue[at + direction] || null;
  const position = (other) => list.shown.indexOf(other.study) * LEVELS.length + other.place;
  const here = position(level);
  const behind = view.queue.filter((other) => (direction > 0 ? position(other) > here : position(other) < here));
  return (direction > 0 ? behind[0] : behind[behind.length - 1]) || null;
}

function neighbourStudy(study, direction) {
  const at = list.shown.indexOf(study);
  return list.shown[at + direction] || null;
}

function go(direction) {
  const next = neighbour(view.level, direction);
  if (next) select(next);
  else say(direction > 0 ? "This was the last level that the filters left." : "This is the first level that the filters left.");
}

function goStudy(direction) {
  const study = neighbourStudy(view.level.study, direction);
  if (!study) say(direction > 0 ? "This is the last study." : "This is the first study.");
  else select(study.levels.find((level) => list.matching.get(study)?.has(level)) || study.levels[0]);
}

function showStudy(level) {
  leaveNote();
  const focused = document.activeElement?.id;
  view.level = level;
  const { study } = level;
  const root = byId("study");
  root.replaceChildren(
    studyHead(study),
    make("div", { class: "study-grid" },
      make("div", { class: "left" },
        make("div", { class: "pictures" },
          sagittalFigure(level),
          make("div", { class: "middle" }, axialFigure(level), make("div", { class: "box" }, measurements(level)))),
        axialStrip(study, level),
        missing(study)),
      make("div", { class: "right" }, levelTable(study, level), review.on ? decisionPanel(level) : null, findings(level), reportText(study)),
    ),
  );
  root.classList.toggle("no-overlay", !view.overlay);
  root.classList.toggle("large", view.large);
  document.title = `Study ${study.number}, ${level.level}`;
  // The element that had the focus was replaced.
  if (focused && byId(focused) && document.activeElement?.id !== focused) byId(focused).focus({ preventScroll: true });
}

function studyHead(study) {
  const at = list.shown.indexOf(study);
  const step = (direction, words, sign) => make("button", {
    type: "button", id: direction > 0 ? "study-next" : "study-previous", "aria-label": words, text: sign,
    disabled: !neighbourStudy(study, direction), on: { click: () => goStudy(direction) },
  });
  const open = allShown(study);
  return make("header", { class: "study-head" },
    make("a", { href: "#", class: "back", id: "back", text: "All studies" }),
    make("div", { class: "name" },
      make("h2", {}, `Study ${study.number}`, study.patient_id ? ` · ${study.patient_id}` : ""),
      make("p", { class: "path", title: study.study_uid, text: study.path || study.study_uid })),
    make("p", { class: "impression", text: open ? study.impression.slice(0, 3).join(" ") : "The impression is hidden until all levels are reviewed." }),
    make("div", { class: "steps" },
      step(-1, "Previous study", "‹"), make("span", { text: at >= 0 ? `${at + 1} of ${list.shown.length}` : "not in the list" }), step(1, "Next study", "›"),
      make("button", { type: "button", id: "overlay", "aria-pressed": String(view.overlay), text: "Overlay", on: { click: toggleOverlay } }),
      make("button", { type: "button", id: "large", "aria-pressed": String(view.large), text: "Larger", on: { click: toggleLarge } })));
}

function toggleOverlay() {
  view.overlay = !view.overlay;
  showStudy(view.level);
}

function toggleLarge() {
  view.large = !view.large;
  showStudy(view.level);
}

function levelTable(study, selected) {
  const rows = study.levels.map((level) => {
    const shown = isShown(level);
    const made = decisionOn(level);
    const flagged = level.warnings.length;
    return make("tr", { class: level === selected ? "selected" : null, on: { click: () => { if (level !== selected) select(level); } } },
      make("th", { scope: "row" }, make("button", {
        type: "button", id: `level-${level.place}`, text: level.level, "aria-current": level === selected ? "true" : null,
      })),
      make("td", {}, shown ? chip(level.grade, gradeWords(level)) : make("span", { class: "chip secret", role: "img", "aria-label": "hidden until reviewed", text: "?" })),
      make("td", {}, shown ? probabilityBar(level) : null),
      make("td", { class: "figure", text: shown ? number(level.ratio) : "?" }),
      make("td", { class: "figure c-confidence", text: shown && level.grade !== null ? number(level.confidence) : "" }),
      make("td", {}, flagged ? make("span", { class: "flag", title: level.warnings.map((flag) => study.meanings[flag]).join("\n"), text: flagged, role: "img", "aria-label": count(flagged, "flag") }) : null),
      review.on ? make("td", { class: "made" }, made && made.decision ? make("span", { class: `decision ${made.decision}`, text: shortDecision(made) }) : null, made?.note ? make("span", { class: "noted", role: "img", "aria-label": "has a note", title: made.note, text: "✎" }) : null) : null);
  });
  const heads = ["Level", "Kang", "Probability of 0 to 3", "Ratio", "Confidence", "Flags", ...(review.on ? ["Mine"] : [])];
  return make("table", { class: "levels" },
    make("caption", { class: "hidden", text: `Levels of study ${study.number}` }),
    make("thead", {}, make("tr", {}, heads.map((text) => make("th", { scope: "col", class: text === "Confidence" ? "c-confidence" : null, text })))),
    make("tbody", {}, rows));
}

function shortDecision(made) {
  return { accept: `✓ ${made.grade}`, regrade: `${made.grade}`, reject: "rejected", artefact: "artefact" }[made.decision];
}

function probabilityBar(level) {
  if (!level.probabilities) return null;
  const words = level.probabilities.map((value, grade) => `${grade}: ${number(value)}`).join(", ");
  const svg = draw("svg", { viewBox: "0 0 100 12", preserveAspectRatio: "none", class: "probability", role: "img", "aria-label": `Probabilities ${words}` }, draw("title", { text: words }));
  let x = 0;
  level.probabilities.forEach((value, grade) => {
    svg.append(draw("rect", { x: x * 100, y: 0, width: value * 100, height: 12, class: `fill ${gradeClass(grade)}` }));
    x += value;
  });
  return svg;
}

function measurements(level) {
  if (!isShown(level)) return make("p", { class: "note", text: "Measurements are hidden until you decide." });
  const healthy = level.healthy || {};
  const rows = [
    ["Ratio AP ÷ T", number(level.ratio), healthy.compression_ratio_z, healthy.compression_ratio_percentile],
    ["AP diameter", level.ap === null ? "–" : `${number(level.ap, 1)} mm`, healthy.ap_z, healthy.ap_percentile],
    ["T diameter", level.transverse === null ? "–" : `${number(level.transverse, 1)} mm`, healthy.transverse_z, healthy.transverse_percentile],
    ["Slice angle", level.slice_angle == null ? "–" : `${number(level.slice_angle, 0)}°`],
  ];
  const compared = rows.some(([, , z]) => z != null);
  const table = make("table", { class: "measurements" },
    make("caption", {}, `${level.level}: the cord`, compared ? make("span", { text: " against healthy adults" }) : null),
    make("thead", { class: compared ? null : "hidden" }, make("tr", {}, make("td"), make("th", { scope: "col", text: "Value" }),
      compared ? [make("th", { scope: "col", text: "Healthy range" }), make("th", { scope: "col", text: "z" }), make("th", { scope: "col" }, make("abbr", { title: "percentile", text: "perc." }))] : null)),
    make("tbody", {}, rows.map(([name, value, z, place]) => make("tr", {}, make("th", { scope: "row", text: name }), make("td", { class: "figure strong", text: value }),
      compared ? [make("td", { class: z == null ? "note" : null }, z == null ? (value === "–" || z === undefined ? null : "not comparable") : healthyBar(z)), make("td", { class: "figure", text: number(z, 1) }), make("td", { class: "figure", text: percentile(place) })] : null)),
      msccRow(level, compared)));
  return table;
}

/** Make the row of the MSCC; null where the level has no diameter. */
function msccRow(level, compared) {
  if (!level.mscc_reference) return null;
  const against = level.mscc === null ? "not seen above or below" : `against ${level.mscc_reference}`;
  const name = make("abbr", { title: "Maximum spinal cord compression: 1 − AP diameter ÷ that of the normal cord above and below", text: "MSCC" });
  return make("tr", {}, make("th", { scope: "row" }, name), make("td", { class: "figure strong", text: number(level.mscc) }),
    compared ? make("td", { colspan: 3, class: "note", text: against }) : null);
}

/** Draw a z-score on a line from −4 to 4 with the healthy range shaded. */
function healthyBar(z) {
  const toX = (value) => 60 + Math.min(Math.max(value, -4), 4) * 14;
  const outside = Math.abs(z) > HEALTHY_Z;
  return draw("svg", { viewBox: "0 0 120 14", class: "healthy", role: "img", "aria-label": `z ${number(z, 1)}, ${outside ? "outside" : "inside"} the healthy range` },
    draw("line", { x1: 4, x2: 116, y1: 7, y2: 7, class: "axis" }),
    draw("rect", { x: toX(-HEALTHY_Z), width: toX(HEALTHY_Z) - toX(-HEALTHY_Z), y: 2, height: 10, rx: 2, class: "band" }),
    draw("line", { x1: 60, x2: 60, y1: 2, y2: 12, class: "middle" }),
    draw("circle", { cx: toX(z), cy: 7, r: 4, class: outside ? "value outside" : "value" }));
}

function findings(level) {
  const { study } = level;
  if (!isShown(level)) return null;
  const flags = [...level.warnings.map((flag) => study.meanings[flag]), ...study.warnings.filter((flag) => !level.warnings.includes(flag)).map((flag) => `${study.meanings[flag]} (whole study)`)];
  return make("section", { class: "findings", "aria-label": "Finding" },
    make("p", { class: "sentence", text: level.sentence }),
    flags.length ? make("ul", { class: "flags" }, flags.map((text) => make("li", { text }))) : null);
}

function reportText(study) {
  const open = allShown(study);
  return make("section", { class: "report", "aria-labelledby": "report-heading" },
    make("div", { class: "heading" }, make("h3", { id: "report-heading", text: "Report text" }),
      make("button", { type: "button", id: "copy", text: "Copy", disabled: !open, on: { click: copyText } })),
    open ? make("pre", { id: "report-text", tabindex: 0, role: "region", "aria-label": "Text of the report", text: study.text }) : make("p", { class: "note", text: "Hidden until all levels are reviewed." }));
}

async function copyText() {
  const { study } = view.level;
  if (!allShown(study)) return;
  try {
    await navigator.clipboard.writeText(study.text);
    say("The report text is on the clipboard.");
  } catch {
    // Without permission, the text is selected for the reader's own copy command.
    getSelection().selectAllChildren(byId("report-text"));
    say("The browser does not let pages copy: the text is selected, press Ctrl+C.");
  }
}

function missing(study) {
  return make("section", { class: "missing", "aria-labelledby": "missing-heading" },
    make("h3", { id: "missing-heading", text: "Not assessed" }),
    make("ul", {}, [...(study.no_pictures ? [`Pictures. ${study.no_pictures}`] : []), ...study.not_assessed].map((text) => make("li", { text }))),
    make("dl", {}, make("div", {}, make("dt", { text: "Study Instance UID" }), make("dd", { class: "code", text: study.study_uid }))));
}
