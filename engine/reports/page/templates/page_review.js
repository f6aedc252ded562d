// Review: the panel of decisions, its keys, export and import.

function decisionPanel(level) {
  const made = decisionOn(level);
  const pressed = (decision, grade = null) => made?.decision === decision && (grade === null || made.grade === grade);
  const graded = made && (made.decision === "accept" || made.decision === "regrade");
  const button = (id, text, key, active, run, kind = "") => make("button", {
    type: "button", id: `decide-${id}`, class: kind, "aria-pressed": String(Boolean(active)), "aria-keyshortcuts": key, on: { click: run },
  }, text, make("kbd", { "aria-hidden": "true", text: key }));
  const grades = [0, 1, 2, 3].map((grade) => make("button", {
    type: "button", id: `decide-${grade}`, class: `toggle ${gradeClass(grade)}`, "aria-pressed": String(Boolean(graded && made.grade === grade)),
    "aria-label": `My grade ${grade}, ${GRADE_WORDS[grade]}`, "aria-keyshortcuts": grade, text: grade, on: { click: () => act(level, "regrade", grade) },
  }));
  const note = make("textarea", { id: "note", rows: 1, placeholder: "Note (n). No names of patients.", "aria-label": `Note on ${level.level}`, on: {
    change: (event) => { writeNote(level, event.currentTarget.value.trim()); showProgress(); },
  } });
  note.value = made?.note || "";
  return make("section", { class: "decide", "aria-label": `My decision on ${level.level}` },
    make("div", { class: "heading" }, make("h3", { text: `My reading of ${level.level}` }), make("span", { id: "decided", class: "note", text: decisionWords(level) })),
    make("div", { class: "buttons" },
      make("div", { class: "grades", role: "group", "aria-label": "My Kang grade" }, grades),
      button("accept", "Accept", "a", pressed("accept"), () => act(level, "accept")),
      button("reject", "Reject", "r", pressed("reject"), () => act(level, "reject")),
      button("artefact", "Artefact", "x", pressed("artefact"), () => act(level, "artefact")),
      button("undo", "Undo", "u", false, undo, "quiet")),
    note);
}

/** Record a decision, and go on if the reader wants that. */
function act(level, decision, grade = null) {
  leaveNote();
  if (!decide(level, decision, grade)) return;
  say(`${level.level} of study ${level.study.number}: ${decisionWords(level)}.`);
  // A hidden result is shown first, so that it can be compared.
  const next = review.advance && !review.blind ? neighbour(level, 1) : null;
  if (next) select(next);
  else showStudy(level);
  showProgress();
}

function undo() {
  const level = undoDecision();
  if (!level) {
    say("There is nothing to undo.");
    return;
  }
  say(`Undone: ${level.level} of study ${level.study.number} is ${decisionWords(level)}.`);
  select(level);
  showProgress();
}

function leaveNote() {
  if (document.activeElement?.id === "note") document.activeElement.blur();
}

function showProgress() {
  const all = studies.length * LEVELS.length;
  const done = studies.reduce((sum, study) => sum + study.levels.filter(isReviewed).length, 0);
  const bar = byId("review-progress");
  bar.max = Math.max(all, 1);
  bar.value = done;
  byId("review-count").textContent = `${done} of ${all} levels`;
  byId("review-export").disabled = review.decisions.size === 0;
  byId("review-clear").disabled = review.decisions.size === 0;
}

/** Show or hide what belongs to review. */
function showReview() {
  byId("review-toggle").setAttribute("aria-pressed", String(review.on));
  byId("review-bar").hidden = !review.on;
  byId("filter-review-label").hidden = !review.on;
  document.body.classList.toggle("reviewing", review.on);
  byId("review-advance").checked = review.advance;
  byId("review-blind").checked = review.blind;
  byId("keys-on").checked = review.keys;
  showProgress();
}

function toggleReview() {
  review.on = !review.on;
  changedOption();
}

function changedOption() {
  keepReview();
  showReview();
  filter();
  if (view.level) {
    startQueue();
    showStudy(view.level);
  }
}

function startReview() {
  byId("review-toggle").addEventListener("click", toggleReview);
  for (const name of ["advance", "blind"]) {
    byId(`review-${name}`).addEventListener("change", (event) => {
      review[name] = event.currentTarget.checked;
      changedOption();
    });
  }
  byId("keys-on").addEventListener("change", (event) => {
    review.keys = event.currentTarget.checked;
    keepReview();
  });
  byId("review-export").addEventListener("click", exportReview);
  byId("review-import").addEventListener("click", () => byId("review-file").click());
  byId("review-file").addEventListener("change", importReview);
  byId("review-clear").addEventListener("click", () => {
    if (!confirm(`Discard all ${review.decisions.size} decisions and notes of this review? Export review.csv first to keep them.`)) return;
    review.decisions.clear();
    review.undo.length = 0;
    changedOption();
    say("All decisions were discarded.");
  });
  showReview();
}

function exportReview() {
  leaveNote();
  const address = URL.createObjectURL(new Blob([reviewCsv()], { type: "text/csv" }));
  make("a", { href: address, download: "review.csv" }).click();
  // The download has begun by then.
  setTimeout(() => URL.revokeObjectURL(address), 10000);
  say(`review.csv: ${count(review.decisions.size, "level")}.`);
}

async function importReview(event) {
  const [file] = event.currentTarget.files;
  if (!file) return;
  const text = await file.text();
  byId("review-file").value = "";
  const outcome = importCsv(text);
  changedOption();
  say(outcome);
}
