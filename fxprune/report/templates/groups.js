"use strict";
(() => {
  const groups = JSON.parse(document.getElementById("data").textContent);
  const svg = document.querySelector("svg");
  const pane = document.getElementById("drawing");
  const boxes = [...svg.querySelectorAll(".box")];
  const edges = [...svg.querySelectorAll(".edges path")];
  const buttons = [...document.querySelectorAll("#groups button")];
  const details = document.getElementById("details");
  const search = document.getElementById("search");
  const found = document.getElementById("found");
  const listed = (element, key) => element.dataset[key].split(" ").filter(Boolean).map(Number);

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
    const width = group.after === group.before ? `${group.before} channels` : `${group.before} → ${group.after} channels`;
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

  const choose = (place, scroll) => {
    const on = place !== null;
    svg.classList.toggle("chosen", on);
    details.hidden = !on;
    for (const box of boxes) {
      box.classList.toggle("makes", on && listed(box, "makes").includes(place));
      box.classList.toggle("reads", on && listed(box, "reads").includes(place));
    }
    for (const edge of edges) edge.classList.toggle("on", on && boxes[edge.dataset.from].classList.contains("makes"));
    buttons.forEach((button, k) => button.classList.toggle("on", k === place));
    if (!on) return;
    describe(groups[place]);
    details.scrollIntoView({ block: "nearest" });
    if (scroll) show(boxes.find((box) => box.classList.contains("makes")));
  };

  const show = (box) => {
    if (!box) return;
    const at = box.getBoundingClientRect();
    const frame = pane.getBoundingClientRect();
    pane.scrollBy(at.x + at.width / 2 - frame.x - frame.width / 2, at.y + at.height / 2 - frame.y - frame.height / 2);
  };

  const find = () => {
    const words = search.value.trim().toLowerCase();
    const within = (text) => words !== "" && text.toLowerCase().includes(words);
    const hits = groups.map((group) => within(group.name) || Object.values(group.members).flat().some(within));
    let drawn = 0;
    for (const box of boxes) {
      const hit = within(box.dataset.name);
      box.classList.toggle("hit", hit);
      drawn += hit;
    }
    buttons.forEach((button, k) => { button.parentElement.hidden = words !== "" && !hits[k]; });
    found.textContent = words === "" ? "" : `layers: ${drawn}, groups: ${hits.filter(Boolean).length}`;
    return hits;
  };

  let scale = 1;
  const zoom = (wanted) => {
    scale = Math.min(3, Math.max(0.05, wanted));
    svg.setAttribute("width", svg.dataset.width * scale);
    svg.setAttribute("height", svg.dataset.height * scale);
  };

  buttons.forEach((button, place) => button.addEventListener("click", () => choose(place, true)));
  svg.addEventListener("click", (event) => {
    const box = event.target.closest(".box");
    const made = box ? [...listed(box, "makes"), ...listed(box, "reads")] : [];
    choose(made.length ? made[0] : null, false);
  });
  search.addEventListener("input", find);
  search.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    const hits = find();
    const box = boxes.find((b) => b.classList.contains("hit"));
    const place = box && listed(box, "makes").length ? listed(box, "makes")[0] : hits.indexOf(true);
    if (place >= 0) choose(place, !box);
    show(box);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") choose(null, false);
  });
  document.getElementById("smaller").addEventListener("click", () => zoom(scale / 1.25));
  document.getElementById("larger").addEventListener("click", () => zoom(scale * 1.25));
  document.getElementById("fit").addEventListener("click", () =>
    zoom(Math.min(pane.clientWidth / svg.dataset.width, pane.clientHeight / svg.dataset.height)));
  document.getElementById("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const dark = (root.style.colorScheme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
    root.style.colorScheme = dark === "dark" ? "light" : "dark";
  });
})();
