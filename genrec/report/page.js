"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const make = (tag, text, classes) => {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (classes) made.className = classes;
    return made;
  };

  // ---- light and dark
  const root = document.documentElement;
  const remembered = (value) => {
    try {
      if (value) localStorage.setItem("genrec-theme", value);
      return localStorage.getItem("genrec-theme");
    } catch { return null; }  // a browser that keeps nothing for files
  };
  const systemDark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : systemDark.matches);
  const toggle = make("button");
  const label = () => { toggle.textContent = isDark() ? "Light" : "Dark"; };
  toggle.type = "button";
  toggle.title = "switch between light and dark";
  toggle.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    remembered(root.dataset.theme);
    label();
  });
  if (remembered()) root.dataset.theme = remembered();
  systemDark.addEventListener("change", label);
  label();
  document.querySelector("nav")?.append(toggle);

  // ---- the section one is in
  const links = new Map(all("nav .links a").map((link) => [link.hash.slice(1), link]));
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      for (const link of links.values()) link.classList.remove("here");
      links.get(entry.target.id)?.classList.add("here");
    }
  }, { rootMargin: "-15% 0px -75% 0px" });
  all("section[id]").forEach((section) => seen.observe(section));

  // ---- tables: sort by a click on a heading, filter the long ones
  const key = (row, column) => {
    const cell = row.cells[column];
    if (!cell) return null;
    const raw = cell.dataset.value ?? cell.textContent.trim();
    if (raw === "" || raw === "-") return null;
    const number = Number(raw);
    return Number.isNaN(number) ? raw : number;
  };
  const compare = (a, b) => (typeof a === "number" && typeof b === "number"
    ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true }));
  const sortBy = (table, column) => {
    const heading = table.tHead.rows[0].cells[column];
    const rows = [...table.tBodies[0].rows];
    const before = heading.getAttribute("aria-sort");
    const numeric = heading.classList.contains("number");
    const order = before ? (before === "descending" ? "ascending" : "descending") : numeric ? "descending" : "ascending";
    const sign = order === "ascending" ? 1 : -1;
    const keyed = rows.map((row) => [key(row, column), row]);
    keyed.sort(([a], [b]) => (a === null ? (b === null ? 0 : 1) : b === null ? -1 : sign * compare(a, b)));
    for (const cell of table.tHead.rows[0].cells) cell.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", order);
    table.tBodies[0].append(...keyed.map(([, row]) => row));
  };
  for (const table of all("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((cell, column) => {
      cell.querySelector("button")?.addEventListener("click", () => sortBy(table, column));
    });
  }
  for (const table of all("table.long")) {
    const rows = [...table.tBodies[0].rows];
    const input = make("input");
    const count = make("span", "", "filtered");
    input.type = "search";
    input.placeholder = `filter ${rows.length} rows`;
    input.setAttribute("aria-label", "filter the rows of this table");
    input.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
        shown += row.hidden ? 0 : 1;
      }
      count.textContent = words.length ? `${shown} of ${rows.length}` : "";
    });
    table.parentElement.before(input, count);
  }

  // ---- copy
  for (const block of all(".code[data-copy]")) {
    const button = make("button", "Copy");
    button.type = "button";
    button.addEventListener("click", async () => {
      const text = block.querySelector("pre").textContent;
      try {
        await navigator.clipboard.writeText(text);
      } catch {
        getSelection().selectAllChildren(block.querySelector("pre"));
        document.execCommand("copy");
        getSelection().removeAllRanges();
      }
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
    block.append(button);
  }

  // ---- tooltips
  const tip = document.getElementById("tip");
  const hide = () => { tip.hidden = true; };
  const show = (event, head, lines) => {
    tip.replaceChildren();
    if (head) tip.append(make("b", head));
    for (const [name, value, colour] of lines) {
      const line = make("div");
      if (colour) {
        const swatch = make("i");
        swatch.style.background = colour;
        line.append(swatch);
      }
      if (name) line.append(make("span", name));
      line.append(make("span", value));
      tip.append(line);
    }
    tip.hidden = false;
    const { width, height } = tip.getBoundingClientRect();
    const right = event.clientX + 16 + width < innerWidth;
    tip.style.left = `${Math.max(6, right ? event.clientX + 16 : event.clientX - width - 16)}px`;
    tip.style.top = `${Math.min(Math.max(6, event.clientY - height / 2), innerHeight - height - 6)}px`;
  };
  const colourOf = (shape) => getComputedStyle(shape.closest(".series") ?? shape).getPropertyValue("--c").trim()
    ? `var(${["--s0", "--s1", "--s2", "--s3", "--s4", "--s5", "--s6", "--s7"][
      Number((/\bc(\d)\b/.exec(shape.closest(".series")?.getAttribute("class") ?? "") ?? [0, 0])[1])]})` : "";
  const MOST_LINES = 12;

  const overLines = (svg) => {
    const points = all(".point", svg).map((shape) => ({
      shape, series: shape.closest(".series"), x: shape.cx.baseVal.value, y: shape.cy.baseVal.value,
    }));
    const cross = document.createElementNS("http://www.w3.org/2000/svg", "line");
    const [, , width, height] = svg.getAttribute("viewBox").split(" ").map(Number);
    cross.setAttribute("class", "crosshair");
    cross.setAttribute("visibility", "hidden");
    svg.prepend(cross);
    const clear = () => {
      cross.setAttribute("visibility", "hidden");
      for (const shape of all(".near", svg)) shape.classList.remove("near");
      hide();
    };
    const move = (event) => {
      const box = svg.getBoundingClientRect();
      const x = ((event.clientX - box.left) / box.width) * width;
      const y = ((event.clientY - box.top) / box.height) * height;
      const live = points.filter((point) => !point.series.classList.contains("off"));
      if (!live.length) return;
      const nearest = live.reduce((a, b) => (Math.abs(b.x - x) < Math.abs(a.x - x) ? b : a));
      const beside = live.filter((point) => Math.abs(point.x - nearest.x) < 0.6);
      beside.sort((a, b) => Math.abs(a.y - y) - Math.abs(b.y - y));
      const shown = beside.slice(0, MOST_LINES).sort((a, b) => a.y - b.y);
      for (const shape of all(".near", svg)) shape.classList.remove("near");
      shown.forEach((point) => point.shape.classList.add("near"));
      for (const name of ["x1", "x2"]) cross.setAttribute(name, nearest.x);
      cross.setAttribute("y1", 14);
      cross.setAttribute("y2", height - 26);
      cross.setAttribute("visibility", "visible");
      const lines = shown.map(({ shape, series }) => [
        series.dataset.name + (series.dataset.note ? ` (${series.dataset.note})` : ""), shape.dataset.y, colourOf(shape)]);
      if (beside.length > shown.length) lines.push([`and ${beside.length - shown.length} more`, ""]);
      show(event, `${svg.dataset.x ?? ""} ${nearest.shape.dataset.x}`.trim(), lines);
    };
    svg.addEventListener("pointermove", move);
    svg.addEventListener("pointerdown", move);
    svg.addEventListener("pointerleave", clear);
  };

  const overShapes = (svg) => {
    const move = (event) => {
      const shape = event.target.closest(".bar, .dot, .cell, .spot");
      if (!shape) return hide();
      if (shape.matches(".dot")) {
        const names = [...all(".axis-name", svg)].map((name) => name.textContent);
        return show(event, shape.dataset.label, [[svg.dataset.x || names[1] || "x", shape.dataset.x],
          [svg.dataset.y || names[0] || "y", shape.dataset.y]]);
      }
      if (shape.matches(".cell")) return show(event, "", [[`${shape.dataset.label}, ${shape.dataset.x}`, shape.dataset.y]]);
      const together = all(shape.matches(".spot") ? ".spot" : ".bar", svg)
        .filter((other) => other.dataset.x === shape.dataset.x && !other.closest(".series").classList.contains("off"));
      return show(event, shape.dataset.x, together.map((other) => [
        other.closest(".series").dataset.name, other.dataset.y, colourOf(other)]));
    };
    svg.addEventListener("pointermove", move);
    svg.addEventListener("pointerdown", move);
    svg.addEventListener("pointerleave", hide);
  };
  for (const svg of all("svg.chart")) {
    all("title", svg).forEach((title) => title.remove());  // the page's own tooltips say more, and at once
    if (svg.matches(".lines")) overLines(svg);
    else overShapes(svg);
  }
  addEventListener("scroll", hide, { passive: true });

  // ---- legends: point to see a series, click to leave it out
  for (const entry of all(".legend [data-series]")) {
    const svg = entry.closest("figure").querySelector("svg.chart");
    const series = all(`.series[data-series="${entry.dataset.series}"]`, svg);
    const lit = (on) => {
      svg.classList.toggle("dim", on && !series[0]?.classList.contains("off"));
      series.forEach((one) => one.classList.toggle("lit", on));
    };
    const press = () => {
      const off = series[0]?.classList.contains("off");
      series.forEach((one) => one.classList.toggle("off", !off));
      entry.setAttribute("aria-pressed", String(Boolean(off)));
      lit(Boolean(off));
    };
    entry.setAttribute("role", "button");
    entry.setAttribute("tabindex", "0");
    entry.setAttribute("aria-pressed", "true");
    entry.addEventListener("pointerenter", () => lit(true));
    entry.addEventListener("pointerleave", () => lit(false));
    entry.addEventListener("click", press);
    entry.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      press();
    });
  }

  // ---- what belongs together, such as a row and its curves: pointing at one lights all
  for (const one of all("[data-link]")) {
    const together = all(`[data-link="${CSS.escape(one.dataset.link)}"]`);
    const light = (on) => together.forEach((other) => {
      other.classList.toggle("lit", on);
      other.closest("svg.chart")?.classList.toggle("dim", on);
    });
    one.addEventListener("pointerenter", () => light(true));
    one.addEventListener("pointerleave", () => light(false));
  }

  // ---- paper shows what is folded away
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = all("details:not([open])");
    opened.forEach((part) => { part.open = true; });
  });
  addEventListener("afterprint", () => opened.forEach((part) => { part.open = false; }));
})();
