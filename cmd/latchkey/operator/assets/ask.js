// Asks before something is done.
import { $ } from "./dom.js";

const dialog = $("ask");

// ask shows a question and resolves to whether it was confirmed. The focus goes
// back to where it was.
export function ask(title, text, yes) {
  $("ask-title").textContent = title;
  $("ask-text").textContent = text;
  $("ask-yes").textContent = yes;
  dialog.returnValue = "no"; // the escape key leaves it
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
    dialog.showModal();
  });
}
