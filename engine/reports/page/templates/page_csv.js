// review.csv: `evaluate` takes it as a reader by its columns study_uid, level and kang_grade.

const CSV_COLUMNS = ["study_number", "study_uid", "level", "kang_grade", "decision", "note", "reviewed_at", "computed_grade", "blinded"];
const FORMULA = /^[ \n]*[=+\-@\t\r]/;

/** Return review.csv with a row for each level that has a decision or a note. */
function reviewCsv() {
  const rows = [CSV_COLUMNS];
  for (const study of studies) {
    for (const level of study.levels) {
      const made = decisionOn(level);
      if (!made) continue;
      rows.push([
        study.number, study.study_uid, level.level, made.grade ?? "", made.decision, made.note, made.at,
        level.grade ?? "", made.blinded ? "yes" : "no",
      ]);
    }
  }
  return rows.map((row) => row.map(csvCell).join(",")).join("\r\n") + "\r\n";
}

function csvCell(value) {
  let text = String(value);
  // A spreadsheet would run it (OWASP, CSV Injection).
  if (FORMULA.test(text)) text = `'${text}`;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** Take the rows of a review.csv. Return what happened, as a sentence. */
function importCsv(text) {
  const plain = text.replace(/^\uFEFF/, "");
  // A spreadsheet of a language with decimal commas writes semicolons.
  const separator = plain.split("\n", 1)[0].includes(";") ? ";" : ",";
  const [head, ...rows] = parseCsv(plain, separator);
  const missing = ["study_uid", "level", "kang_grade"].filter((name) => !(head || []).includes(name));
  if (missing.length) return `This is no review.csv: it has no column ${missing.join(", ")}.`;
  let taken = 0;
  let unknown = 0;
  for (const cells of rows) {
    const row = Object.fromEntries(head.map((name, index) => [name, cells[index] ?? ""]));
    const level = levelOf(row);
    const made = level && importedDecision(row, level);
    if (!made) unknown += 1;
    else {
      review.decisions.set(level.key, made);
      taken += 1;
    }
  }
  review.undo.length = 0;
  keepReview();
  const left = unknown ? ` ${count(unknown, "row")} left out: no such level in this run, or no valid decision.` : "";
  return `${count(taken, "row")} imported.${left}`;
}

function levelOf(row) {
  const numbered = byUid.get(`${row.study_number} ${row.study_uid}`);
  const same = studies.filter((study) => study.study_uid === row.study_uid);
  // Runs may number studies differently; a UID that several patients share needs the number.
  const study = numbered || (same.length === 1 ? same[0] : null);
  return study ? study.levels.find((level) => level.level === row.level) || null : null;
}

function importedDecision(row, level) {
  if (!/^[0-3]?$/.test(row.kang_grade)) return null;
  const grade = row.kang_grade === "" ? null : Number(row.kang_grade);
  let decision = row.decision || "";
  // Another reader's file may have grades alone.
  if (decision === "" && grade !== null) decision = grade === level.grade ? "accept" : "regrade";
  if (decision === "accept" && grade !== level.grade) decision = "regrade";
  const note = (row.note || "").replace(/^'(?=[ \n]*[=+\-@\t\r])/, "");
  const made = { decision, grade, note, at: row.reviewed_at || new Date().toISOString(), blinded: row.blinded === "yes" };
  return validDecision(made) ? made : null;
}

/** Return the rows of a CSV file (RFC 4180), without empty lines. */
function parseCsv(text, separator) {
  const rows = [];
  let row = [];
  let cell = "";
  let quoted = false;
  const endRow = () => {
    row.push(cell);
    if (row.length > 1 || row[0] !== "") rows.push(row);
    row = [];
    cell = "";
  };
  for (let index = 0; index < text.length; index += 1) {
    const character = text[index];
    if (quoted) {
      if (character !== '"') cell += character;
      else if (text[index + 1] === '"') {
        cell += '"';
        index += 1;
      } else quoted = false;
    } else if (character === '"') quoted = true;
    else if (character === separator) {
      row.push(cell);
      cell = "";
    } else if (character === "\n") endRow();
    else if (character !== "\r") cell += character;
  }
  if (cell !== "" || row.length) endRow();
  return rows;
}
