// Photos to look through: only those of one page are elements, so that ten thousand stay light.
{
  const PER_PAGE = 60;
  const rows = JSON.parse(find("#rows").textContent);
  const list = find("#list");
  const [species, words, order] = ["#species", "#words", "#order"].map((name) => find(name));
  const count = rows.names.length;
  const lower = rows.names.map((name, row) => `${name} ${rows.classes[rows.said[row]]}`.toLowerCase());

  // The first pictures stand in the page already, for who has no JavaScript.
  for (const card of every("[data-row]", list)) {
    const image = find("img", card);
    if (image) rows.thumbnails[Number(card.dataset.row)] = image.src;
  }

  const named = new Map();
  for (const said of rows.said) named.set(said, (named.get(said) ?? 0) + 1);
  const sorted = [...named.keys()].sort((one, other) => compare(rows.classes[one], rows.classes[other]));
  const place = new Map(sorted.map((said, index) => [said, index]));
  for (const said of sorted) {
    species.add(new Option(`${rows.classes[said]} (${named.get(said)})`, String(said)));
  }

  const orders = {
    species: (one, other) =>
      place.get(rows.said[one]) - place.get(rows.said[other]) || rows.p[one] - rows.p[other],
    least: (one, other) => rows.p[one] - rows.p[other],
    most: (one, other) => rows.p[other] - rows.p[one],
    name: (one, other) => compare(rows.names[one], rows.names[other]),
  };

  let chosen = [];
  let page = 0;

  function element(tag, kind, ...content) {
    const made = document.createElement(tag);
    if (kind) made.className = kind;
    made.append(...content);
    return made;
  }

  const probability = (value) => element("span", "p", (value / 1e4).toFixed(3));

  function card(row, grouped) {
    const picture = rows.thumbnails[row];
    let shown;
    if (picture) {
      shown = element("img");
      Object.assign(shown, { alt: "", loading: "lazy", decoding: "async", src: picture });
    } else {
      shown = element("span", "blank", "no picture");
    }
    const said = element("b", grouped ? "unsaid" : "", rows.classes[rows.said[row]]);
    const made = element("li", "card", shown, element("p", "", said, " ", probability(rows.p[row])));
    if (rows.second[row] >= 0) {
      made.append(element("p", "next", `or ${rows.classes[rows.second[row]]} `, probability(rows.q[row])));
    }
    made.append(element("p", "file", rows.names[row]));
    return made;
  }

  function show(moved) {
    const pages = Math.max(1, Math.ceil(chosen.length / PER_PAGE));
    page = Math.min(Math.max(page, 0), pages - 1);
    const parts = [];
    let cards;
    let last; // the species of the heading above
    for (const row of chosen.slice(page * PER_PAGE, (page + 1) * PER_PAGE)) {
      const said = rows.said[row];
      if (order.value === "species" && said !== last) {
        last = said;
        cards = undefined;
        parts.push(element("h3", "", `${rows.classes[said]} `, element("span", "", `${named.get(said).toLocaleString("en")} in all`)));
      }
      if (!cards) parts.push((cards = element("ul", "cards small")));
      cards.append(card(row, order.value === "species"));
    }
    list.replaceChildren(...parts);
    const photos = `${chosen.length.toLocaleString("en")} photo${chosen.length === 1 ? "" : "s"}`;
    find("#page").textContent = `${photos}, page ${page + 1} of ${pages}`;
    for (const button of every(".before")) button.disabled = page === 0;
    for (const button of every(".after")) button.disabled = page === pages - 1;
    if (moved) find("#photos").scrollIntoView();
  }

  function choose() {
    const wanted = Number(species.value);
    const text = words.value.trim().toLowerCase();
    chosen = [];
    for (let row = 0; row < count; row += 1) {
      if ((wanted < 0 || rows.said[row] === wanted) && lower[row].includes(text)) chosen.push(row);
    }
    chosen.sort(orders[order.value]);
    page = 0;
    show(false);
  }

  for (const field of [species, order]) field.addEventListener("change", choose);
  words.addEventListener("input", choose);
  find("#tools").addEventListener("submit", (event) => event.preventDefault());
  for (const button of every(".before")) button.addEventListener("click", () => { page -= 1; show(true); });
  for (const button of every(".after")) button.addEventListener("click", () => { page += 1; show(true); });
  choose();
}
