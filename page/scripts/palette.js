// The slider: the viewer follows it, what is typed into it is made a number that it has, and colours are copied.
const REST = 600; // milliseconds without a change, after which the networks are asked
const slider = () => document.getElementById("colours");
let resting;

watch("value", () => window.unetViewer?.paint(props.value));

// Whoever moves the slider wants to see what it does.
window.addEventListener("input", (event) => {
  if (slider()?.contains(event.target) && !document.querySelector("#ask-colours input")?.checked) {
    window.unetViewer?.choose("view", "Colours");
  }
}, true);

// The field may hold "1" on the way to "12": Gradio hears of what is typed when it is a number of the slider's, and
// anything else becomes the nearest one when the field is left.
function typed(event) {
  const field = event.target;
  if (field.type !== "number" || !slider()?.contains(field)) return;
  const [low, high] = [field.min, field.max].map(Number);
  const number = Number(field.value);
  const fits = field.value !== "" && Number.isInteger(number) && number >= low && number <= high;
  if (fits) return;
  event.stopImmediatePropagation();
  const leaves = event.type !== "input" && (event.type !== "keydown" || event.key === "Enter");
  if (!leaves) return;
  const kept = Number(slider().querySelector("input[type=range]").value);
  field.value = field.value === "" || Number.isNaN(number) ? kept : Math.min(Math.max(Math.round(number), low), high);
  field.dispatchEvent(new Event("input", { bubbles: true }));
}
for (const name of ["input", "keydown", "change", "blur", "focusout"]) window.addEventListener(name, typed, true);

element.addEventListener("click", async (event) => {
  const chip = event.target.closest(".chip");
  if (!chip) return;
  await unetPage.copy(chip.dataset.hex);
  chip.classList.add("copied");
  const said = element.querySelector(".copied-note");
  said.textContent = `${chip.dataset.hex} copied`;
  setTimeout(() => {
    chip.classList.remove("copied");
    said.textContent = "";
  }, 1500);
});

/** After the slider moved: with the box ticked, the networks are asked when it rests, never during a drag. */
window.unetPalette = {
  repaint: () => trigger("repaint"),
  moved: (asked) => {
    trigger("repaint");
    clearTimeout(resting);
    // What a link restores was not moved, and its answer is under way.
    if (asked && unetPage.isTouched()) resting = setTimeout(() => trigger("rest"), REST);
  },
};
