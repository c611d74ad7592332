"use strict";
(() => {
  const groups = JSON.parse(document.getElementById("data").textContent);
  const pane = document.getElementById("drawing");
  const buttons = [...document.querySelectorAll("#groups button")];
  const details = document.getElementById("details");
  const search = document.getElementById("search");
  const found = document.getElementById("found");
  const listed = (element, key) => (element.dataset[key] || "").split(" ").filter(Boolean);
  const placed = (element, key) => listed(element, key).map(Number);
  const views = [...pane.querySelectorAll(".view")].map((view) => ({
    view, svg: view.querySelector("svg"),
    boxes: [...view.querySelectorAll(".box")], edges: [...view.querySelectorAll(".edges path")], drawn: [],
    width: +view.dataset.width, height: +view.dataset.height, ranks: +view.dataset.ranks,
    grid: +view.dataset.grid, margin: +view.dataset.margin,
  }));
  let active = views[0];
  let scale = 1;
  let whole = false;
  let automatic = true;
  let chosen = null;

  const make = (tag, text) => {
    const element = document.createElement(tag);
    element.textContent = text;
    return element;
  };

  const list = (title, lines) => {
    const items = document.createElement("ul");
    items.append(...lines.map((line) => make("li", line)));
    return lines.length ? [make("h3", `${title} (${lines.length})`), items] : [];
  };

  const describe = (group) => {
    const members = (role) => group.members[role] || [];
    const change = group.after === group.before ? `${group.before}` : `${group.before} → ${group.after}`;
    const width = group.of ? `${change} channels ${group.of}` : `${change} channels`;
    details.replaceChildren(make("h2", group.name), make("p", width),
      make("p", `with it go ${group.params} of the parameters, ${group.macs} of the MACs`));
    if (group.frozen) {
      const warning = make("p", `may not be cut: ${group.frozen}`);
      warning.className = "warning";
      details.append(warning);
    }
    details.append(...list("tied by", group.ties), ...list("voters", members("producer")),
      ...list("consumers", members("consumer")), ...list("carriers", members("carrier")));
  };

  // The drawing is one column; where the window has room, it is cut between two ranks and goes on beside itself.
  const columns = () => {
    const room = Math.max(1, Math.floor((pane.clientWidth + 1) / (active.width * scale)));
    return Math.min(room, active.ranks, Math.max(1, Math.ceil(active.height * scale / pane.clientHeight)));
  };

  // As large as is comfortable, in as many columns as it takes to see all of it, or as there is room for.
  const comfortable = () => {
    const sized = (n) => Math.min(1.3, pane.clientWidth / (n * active.width));
    let n = 1;
    while (sized(n) * active.height / n > pane.clientHeight && sized(n + 1) >= 0.75) n++;
    return Math.max(0.4, sized(n));
  };

  const fitting = () => {
    let best = 0;
    for (let n = 1; n <= active.ranks; n++) {
      const height = Math.ceil(active.ranks / n) * active.grid + active.margin;
      best = Math.max(best, Math.min(pane.clientWidth / (n * active.width), pane.clientHeight / height));
    }
    return best;
  };

  const lay = () => {
    if (whole) scale = fitting();
    else if (automatic) scale = comfortable();
    const { view, svg, boxes, edges, width, height, ranks, grid, margin } = active;
    const rows = whole ? Math.max(1, Math.floor((pane.clientHeight / scale - margin) / grid)) : Math.ceil(ranks / columns());
    const parts = Array.from({ length: Math.ceil(ranks / rows) }, (_, k) => {
      const top = k ? margin + (k * rows - 0.5) * grid : 0;
      const end = Math.min(height, margin + ((k + 1) * rows - 0.5) * grid);
      const part = svg.cloneNode(false);
      part.setAttribute("viewBox", `0 ${top} ${width} ${end - top}`);
      part.setAttribute("width", width * scale);
      part.setAttribute("height", (end - top) * scale);
      part.append(...[...svg.children].map((layer) => layer.cloneNode(false)));
      return part;
    });
    for (const box of boxes) parts[Math.floor(box.dataset.rank / rows)].lastChild.append(box);
    active.drawn = edges.flatMap((edge) => {
      const first = Math.floor(edge.dataset.first / rows);
      const last = Math.floor(edge.dataset.last / rows);
      return parts.slice(first, last + 1).map((part) => part.firstChild.appendChild(edge.cloneNode()));
    });
    view.replaceChildren(...parts);
    mark();
  };

  const mark = () => {
    pane.classList.toggle("chosen", chosen !== null);
    for (const box of active.boxes) {
      box.classList.toggle("makes", chosen !== null && placed(box, "makes").includes(chosen));
      box.classList.toggle("reads", chosen !== null && placed(box, "reads").includes(chosen));
    }
    for (const edge of active.drawn)
      edge.classList.toggle("on", chosen !== null && active.boxes[edge.dataset.from].classList.contains("makes"));
  };

  const choose = (place, scroll) => {
    chosen = place;
    details.hidden = place === null;
    mark();
    for (const button of buttons) {
      const on = +button.dataset.group === place;
      button.classList.toggle("on", on);
      if (on && button.closest("details")) button.closest("details").open = true;
    }
    if (place === null) return;
    describe(groups[place]);
    details.scrollIntoView({ block: "nearest" });
    if (scroll) show(active.boxes.find((box) => box.classList.contains("makes")));
  };

  const show = (box) => {
    if (!box) return;
    const at = box.getBoundingClientRect();
    const frame = pane.getBoundingClientRect();
    pane.scrollBy(at.x + at.width / 2 - frame.x - frame.width / 2, at.y + at.height / 2 - frame.y - frame.height / 2);
  };

  const find = () => {
    const words = search.value.trim().toLowerCase();
    const on = words !== "";
    const within = (text) => on && text.toLowerCase().includes(words);
    const hits = groups.map((group) => within(group.name) || Object.values(group.members).flat().some(within));
    const layers = new Set();
    document.body.classList.toggle("searching", on);
    for (const box of active.boxes) {
      const names = [box.dataset.name, ...listed(box, "holds")].filter(within);
      names.forEach((name) => layers.add(name));
      box.classList.toggle("hit", names.length > 0);
      box.classList.toggle("lit", placed(box, "makes").some((place) => hits[place]));
    }
    for (const button of buttons) button.parentElement.hidden = on && !hits[button.dataset.group];
    for (const family of document.querySelectorAll("#groups .family")) {
      const some = [...family.querySelectorAll("button")].some((button) => hits[button.dataset.group]);
      family.hidden = on && !some;
      family.firstElementChild.open = on && some;
    }
    found.textContent = on ? `layers: ${layers.size}, groups: ${hits.filter(Boolean).length}` : "";
    show(active.boxes.find((box) => box.classList.contains("hit")) || active.boxes.find((box) => box.classList.contains("lit")));
    return hits;
  };

  const zoom = (wanted) => {
    whole = automatic = false;
    scale = Math.min(3, Math.max(0.05, wanted));
    lay();
  };

  const unfold = () => {
    active.view.hidden = true;
    active = views[(views.indexOf(active) + 1) % views.length];
    active.view.hidden = false;
    document.getElementById("unfold").textContent = active === views[0] ? "all blocks" : "one of each";
    lay();
    find();
  };

  for (const button of buttons) button.addEventListener("click", () => choose(+button.dataset.group, true));
  pane.addEventListener("click", (event) => {
    const box = event.target.closest(".box");
    if (box && box.classList.contains("fold")) return unfold();
    const made = box ? [...placed(box, "makes"), ...placed(box, "reads")] : [];
    choose(made.length ? made[0] : null, false);
  });
  search.addEventListener("input", find);
  search.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    const hits = find();
    const box = active.boxes.find((b) => b.classList.contains("hit"));
    const place = box && placed(box, "makes").length && !listed(box, "holds").length ? placed(box, "makes")[0] : hits.indexOf(true);
    if (place >= 0) choose(place, !box);
    show(box);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") choose(null, false);
  });
  document.getElementById("smaller").addEventListener("click", () => zoom(scale / 1.25));
  document.getElementById("larger").addEventListener("click", () => zoom(scale * 1.25));
  document.getElementById("fit").addEventListener("click", () => {
    whole = true;
    lay();
  });
  if (views.length > 1) document.getElementById("unfold").addEventListener("click", unfold);
  document.getElementById("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const dark = (root.style.colorScheme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
    root.style.colorScheme = dark === "dark" ? "light" : "dark";
  });
  addEventListener("resize", lay);
  lay();
})();
