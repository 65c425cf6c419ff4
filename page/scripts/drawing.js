// A skip in the drawing is a switch: it is left out, or put back.
const side = element.closest("#drawing-b") ? 1 : 0;

function press(event) {
  const skip = event.target.closest("[data-level]");
  if (!skip || (event.key && !["Enter", " "].includes(event.key))) return;
  event.preventDefault();
  trigger("skip", { side, level: Number(skip.dataset.level) });
}
element.addEventListener("click", press);
element.addEventListener("keydown", press);

// Closed, the section costs nothing.
if (side === 0) {
  window.unetInside = () => document.querySelector("#inside .label-wrap.open") && trigger("look");
}
