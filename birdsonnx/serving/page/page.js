// What the page does with a photo, whoever names it: a server (main.js here) or the browser itself
// (examples/browser/main.js).

const find = (id) => document.getElementById(id);
const SURE = 0.5;

const percent = (share) =>
  share >= 0.9995 ? "100 %" : share < 0.001 ? "< 0.1 %" : `${(100 * share).toFixed(1)} %`;

function row([name, share]) {
  const item = document.createElement("li");
  for (const [kind, text] of [["bar", ""], ["name", name], ["share", percent(share)]]) {
    const part = document.createElement(kind === "share" ? "data" : "span");
    part.className = kind;
    part.textContent = text;
    item.append(part);
  }
  item.firstChild.style.width = `${100 * share}%`;
  item.lastChild.value = share;
  return item;
}

function card(file) {
  const made = find("card").content.cloneNode(true).firstElementChild;
  const picture = made.querySelector("img");
  const address = URL.createObjectURL(file);
  picture.onload = () => URL.revokeObjectURL(address);
  picture.onerror = () => {
    URL.revokeObjectURL(address);
    picture.replaceWith("no preview");
  };
  picture.src = address;
  made.querySelector(".file").textContent = file.name;
  return made;
}

/** What is said of a photo, for its heading, and for the line that a screen reader speaks. */
function words([name, share], level) {
  if (level === "unknown") return ["Unknown", "unknown"];
  if (level === "unsure") return [`Unsure, perhaps ${name}`, `unsure, perhaps ${name}, ${percent(share)}`];
  return share >= SURE
    ? [name, `${name}, ${percent(share)}`]
    : [`Perhaps ${name}`, `perhaps ${name}, ${percent(share)}`];
}

function shown(file, { top, level }) {
  const made = card(file);
  const [heading, said] = words(top[0], level);
  made.querySelector("h2").textContent = heading;
  made.querySelector("img").alt = `The photo ${file.name}`;
  made.querySelector(".names").append(...top.map(row));
  return [made, `${file.name}: ${said}`];
}

function failed(file, error) {
  const made = card(file);
  made.classList.add("wrong");
  made.querySelector("h2").textContent = "This photo could not be named";
  made.querySelector(".file").textContent = error.message.includes(file.name)
    ? error.message
    : `${file.name}: ${error.message}`;
  made.querySelector(".picture").remove();
  made.querySelector(".names").remove();
  return [made, made.querySelector(".file").textContent];
}

/**
 * Let people drop, choose and paste photos.
 * @param ready a promise of the texts about the model: {about, note}.
 * @param name gives what is said of a file: {top: [[name, probability], …], level}, the likeliest first, the level where it is
 *   "unknown" or "unsure"; or throws an Error whose message is for people.
 */
export function start({ ready, name }) {
  const [drop, choose, status] = ["drop", "choose", "status"].map(find);
  let queue = Promise.resolve(); // one photo at a time, in the order in which they came

  async function nameOne(file) {
    status.className = "";
    status.textContent = `Looking at ${file.name} …`;
    const [made, said] = await name(file).then(
      (found) => shown(file, found),
      (error) => failed(file, error),
    );
    document.body.classList.add("used");
    find("photos").prepend(made);
    status.className = "said";
    status.textContent = said;
  }

  function take(files) {
    for (const file of files) queue = queue.then(() => nameOne(file));
  }

  choose.addEventListener("change", () => {
    take([...choose.files]);
    choose.value = ""; // so that the same photo can be chosen again
  });
  addEventListener("paste", (event) => take([...event.clipboardData.files]));
  for (const kind of ["dragenter", "dragover"]) {
    addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
  }
  addEventListener("dragleave", (event) => event.relatedTarget || drop.classList.remove("over"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    take([...event.dataTransfer.files]);
  });

  ready.then(
    ({ about, note }) => {
      find("about").textContent = about;
      find("note").textContent = note;
    },
    (error) => {
      find("about").textContent = error.message;
    },
  );
}
