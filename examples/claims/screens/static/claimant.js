// Photos are sent as they are chosen, each in a request of its own, and the status page follows its claim.
// Without this script the same forms send everything at once, and the page is right when it is loaded.
"use strict";

const shots = document.querySelector("[data-shots]");
const tally = document.querySelector("[data-tally]");
let waiting = 0;

for (const input of document.querySelectorAll("[data-upload]")) {
  input.addEventListener("change", () => take(input));
}

function take(input) {
  for (const file of input.files) send(file);
  input.value = "";
}

for (const input of document.querySelectorAll("[data-chosen]")) {
  input.addEventListener("change", () => {
    input.parentElement.firstChild.textContent = input.files.length === 1 ? input.files[0].name : `${input.files.length} files`;
  });
}

function send(file) {
  const number = shots.children.length + 1;
  const shot = document.createElement("li");
  shot.className = "shot";
  const picture = document.createElement("img");
  picture.alt = `Photo ${number}`;
  picture.width = 86;
  picture.height = 64;
  picture.src = URL.createObjectURL(file);
  const about = document.createElement("div");
  const name = text("p", "name", `Photo ${number}`);
  const bar = document.createElement("progress");
  bar.max = 100;
  bar.setAttribute("aria-label", `Photo ${number}, sent so far`);
  const hint = text("p", "hint", "on its way");
  about.append(name, bar, hint);
  shot.append(picture, about);
  shots.append(shot);
  attempt(file, number, shot, about, bar, hint);
}

function attempt(file, number, shot, about, bar, hint) {
  count(1);
  const request = new XMLHttpRequest();
  request.open("POST", "/file/photo");
  request.responseType = "json";
  request.upload.addEventListener("progress", (event) => {
    bar.value = (100 * event.loaded) / event.total;
    hint.textContent = `${(event.loaded / 1e6).toFixed(1)} of ${(event.total / 1e6).toFixed(1)} MB sent`;
  });
  request.addEventListener("loadend", () => {
    count(-1);
    const answer = request.response || {};
    if (answer.photo) return sent(answer, number, shot, about);
    const problem = answer.problem || "the connection broke";
    refused(problem, shot, about, !answer.problem && (() => {
      shot.classList.remove("refused");
      about.replaceChildren(text("p", "name", `Photo ${number}`), bar, hint);
      attempt(file, number, shot, about, bar, hint);
    }));
  });
  request.send(file);
}

function sent(answer, number, shot, about) {
  shot.classList.add("fine");
  const keep = document.createElement("label");
  const box = document.createElement("input");
  Object.assign(box, { type: "checkbox", name: "photo", value: answer.photo, checked: true });
  keep.append(box, " keep", text("span", "hide", ` photo ${number}`));
  about.replaceChildren(text("p", "name", `Photo ${number}`), text("p", "pill good", "Sent"), keep);
  count(0);
}

function refused(problem, shot, about, again) {
  shot.classList.add("refused");
  const words = text("p", "error", problem[0].toUpperCase() + problem.slice(1));
  about.replaceChildren(about.firstChild, words);
  if (again) {
    const button = text("button", "small", "Carry on");
    button.type = "button";
    button.addEventListener("click", again);
    about.append(button);
  }
}

function count(more) {
  waiting += more;
  const done = shots.querySelectorAll("input[name=photo]:checked").length;
  tally.textContent = waiting ? `${done} sent, ${waiting} on the way` : `${done} sent`;
}

function text(tag, kind, words) {
  const element = document.createElement(tag);
  element.className = kind;
  element.textContent = words;
  return element;
}

const status = document.querySelector("[data-status]");
const live = document.querySelector("[data-live]");

async function follow() {
  const isTyping = status.contains(document.activeElement) && document.activeElement.matches("input, button, label");
  const hasFile = [...status.querySelectorAll("input[type=file]")].some((input) => input.files.length);
  if (!isTyping && !hasFile && !document.hidden) {
    try {
      const answer = await fetch(status.dataset.status);
      if (!answer.ok) throw new Error(answer.statusText);
      const part = await answer.text();
      if (part !== status.dataset.shown) status.innerHTML = status.dataset.shown = part;
      live.classList.remove("away");
      live.textContent = `Up to date, ${new Date().toTimeString().slice(0, 5)}`;
    } catch {
      live.classList.add("away");
      live.textContent = "No connection, trying again";
    }
  }
  setTimeout(follow, 2000);
}

if (status) setTimeout(follow, 1000);

// Photos that were chosen before this script came.
for (const input of document.querySelectorAll("[data-upload]")) take(input);
