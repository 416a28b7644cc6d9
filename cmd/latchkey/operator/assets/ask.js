// Asks before something is done.
import { $ } from "./dom.js";

const dialog = $("ask");
let settle = () => {};

dialog.addEventListener("close", () => {
  // The event comes late: the next question may be there already.
  if (!dialog.open) settle(dialog.returnValue === "yes");
});

// ask shows a question and resolves to whether it was confirmed. The focus goes
// back to where it was.
export function ask(title, text, yes) {
  $("ask-title").textContent = title;
  $("ask-text").textContent = text;
  $("ask-yes").textContent = yes;
  dialog.returnValue = "no"; // the escape key leaves it
  settle(false);
  return new Promise((resolve) => {
    settle = resolve;
    dialog.showModal();
  });
}
