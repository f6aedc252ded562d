(() => {
  "use strict";
  const tip = document.querySelector(".tip");
  const REACH = 28;
  let marked = null;

  // Of the two pictures of a chart, that of this width of the screen.
  const points = (plot) =>
    [...plot.querySelectorAll("svg")].filter((svg) => svg.getBoundingClientRect().width)
      .flatMap((svg) => [...svg.querySelectorAll(".p[data-tip]")]);

  const hide = () => {
    if (marked) marked.classList.remove("on");
    marked = null;
    tip.hidden = true;
  };

  const show = (point) => {
    if (point === marked) return;
    hide();
    marked = point;
    point.classList.add("on");
    tip.textContent = point.dataset.tip;
    tip.hidden = false;
    const at = point.getBoundingClientRect();
    const size = tip.getBoundingClientRect();
    const left = Math.min(Math.max(4, at.left + at.width / 2 - size.width / 2), innerWidth - size.width - 4);
    const above = at.top - size.height - 8;
    tip.style.left = `${left}px`;
    tip.style.top = `${above > 4 ? above : at.bottom + 8}px`;
  };

  const distance = (point, x, y) => {
    const box = point.getBoundingClientRect();
    return Math.hypot(Math.max(box.left - x, 0, x - box.right), Math.max(box.top - y, 0, y - box.bottom));
  };

  const nearest = (plot, event) => {
    let best = null, least = REACH;
    for (const point of points(plot)) {
      const far = distance(point, event.clientX, event.clientY);
      if (far < least) [best, least] = [point, far];
    }
    return best;
  };

  const STEPS = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
  for (const plot of document.querySelectorAll(".plot")) {
    plot.addEventListener("pointermove", (event) => {
      const point = nearest(plot, event);
      if (point) show(point); else hide();
    });
    plot.addEventListener("pointerleave", hide);
    plot.addEventListener("blur", hide);
    plot.addEventListener("keydown", (event) => {
      if (event.key === "Escape") return hide();
      const all = points(plot);
      const here = all.indexOf(marked);
      let next = null;
      if (event.key in STEPS) next = here < 0 ? 0 : Math.min(Math.max(here + STEPS[event.key], 0), all.length - 1);
      else if (event.key === "Home") next = 0;
      else if (event.key === "End") next = all.length - 1;
      if (next === null || !all.length) return;
      event.preventDefault();
      all[next].scrollIntoView({ block: "nearest" });
      show(all[next]);
    });
  }
  addEventListener("scroll", () => { if (marked && !marked.closest(".plot").contains(document.activeElement)) hide(); }, { passive: true });
})();
