// Building of elements. Text is only ever set as text, never parsed as markup.

const SVG = "http://www.w3.org/2000/svg";

/** Return the element with an id of the page. */
function byId(id) {
  return document.getElementById(id);
}

/** Make an HTML element: attributes, `text`, `on` (listeners by event), and children. */
function make(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** Make an SVG element likewise. */
function draw(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "text") node.textContent = value;
    else if (name === "on") for (const [event, run] of Object.entries(value)) node.addEventListener(event, run);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

/** Return a number with a fixed number of digits and a true minus sign; a dash where there is none. */
function number(value, digits = 2) {
  if (value === null || value === undefined) return "–";
  const text = value.toFixed(digits);
  return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−");
}

/** Return "1st", "2nd", … for a percentile; "< 1st" and "> 99th" at the ends. */
function percentile(value) {
  if (value === null || value === undefined) return "–";
  if (value < 1) return "< 1st";
  if (value > 99) return "> 99th";
  const whole = Math.round(value);
  const teens = whole % 100 >= 11 && whole % 100 <= 13;
  return `${whole}${teens ? "th" : ["th", "st", "nd", "rd"][whole % 10] || "th"}`;
}

/** Return "1 level", "2 levels". */
function count(amount, word, words = `${word}s`) {
  return `${amount} ${amount === 1 ? word : words}`;
}

/** Make the coloured chip of a grade; a dash where there is none. */
function chip(grade, label = "") {
  const shown = grade === null || grade === undefined ? "–" : String(grade);
  return make("span", { class: `chip ${gradeClass(grade)}`, text: shown, "aria-label": label || false, role: label ? "img" : false });
}

function gradeClass(grade) {
  return grade === null || grade === undefined ? "none" : `g${grade}`;
}

/** Say something in the status line, which screen readers announce. */
function say(text) {
  const line = byId("status");
  line.textContent = text;
  line.classList.remove("fresh");
  void line.offsetWidth;
  line.classList.add("fresh");
}
