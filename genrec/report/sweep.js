"use strict";
// Pointing at a run anywhere, in a chart or in the table, lights it everywhere and tells what it was.
addEventListener("DOMContentLoaded", () => {
  const main = document.querySelector("main");
  const tip = document.getElementById("tip");
  const told = JSON.parse(document.getElementById("runs").textContent);
  const marks = new Map();
  for (const mark of main.querySelectorAll("[data-run]")) {
    const run = mark.dataset.run;
    if (!marks.has(run)) marks.set(run, []);
    marks.get(run).push(mark.closest("tr") ?? mark);
  }
  let shown = null;
  const light = (run) => {
    if (run === shown) return;
    for (const mark of marks.get(shown) ?? []) mark.classList.remove("on");
    for (const mark of marks.get(run) ?? []) {
      mark.classList.add("on");
    }
    main.classList.toggle("tracing", run !== null);
    shown = run;
  };
  const tell = (event, run) => {
    const { head, lines } = told[run];
    const title = document.createElement("b");
    title.textContent = head;
    const rows = lines.map((pair) => {
      const row = document.createElement("div");
      row.append(...pair.map((text) => Object.assign(document.createElement("span"), { textContent: text })));
      return row;
    });
    tip.replaceChildren(title, ...rows);
    tip.hidden = false;
    const { width, height } = tip.getBoundingClientRect();
    const right = event.clientX + 16 + width < innerWidth;
    tip.style.left = `${Math.max(6, right ? event.clientX + 16 : event.clientX - width - 16)}px`;
    tip.style.top = `${Math.min(Math.max(6, event.clientY - height / 2), innerHeight - height - 6)}px`;
  };
  const runAt = (target) => {
    const mark = target.closest?.("[data-run]") ?? target.closest?.("tbody tr")?.querySelector("[data-run]");
    return mark && main.contains(mark) ? mark.dataset.run : null;
  };
  document.addEventListener("pointermove", (event) => {
    const run = runAt(event.target);
    light(run);
    if (run !== null && event.target.closest("svg") && told[run]) tell(event, run);
  });
  document.addEventListener("pointerleave", () => light(null));
  document.addEventListener("focusin", (event) => light(runAt(event.target)));
  document.addEventListener("focusout", () => light(null));
});
