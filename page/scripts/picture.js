// The ways a picture comes in. Chosen, dropped and pasted files all go through the hidden box of the page.
const note = element.querySelector(".note");
let noteTimer;

function say(text) {
  note.textContent = text;
  clearTimeout(noteTimer);
  noteTimer = setTimeout(() => (note.textContent = ""), 8000);
}

/** Upload the first picture among ``files``. */
function take(files) {
  const picture = [...(files ?? [])].find((file) => file.type.startsWith("image/") || file.type === "");
  const input = document.querySelector("#picture input[type=file]");
  if (!picture || !input) return false;
  const one = new DataTransfer();
  one.items.add(picture);
  input.files = one.files;
  input.dispatchEvent(new Event("change", { bubbles: true }));
  return true;
}

async function paste() {
  const nothing = "There is no picture in the clipboard: copy one first.";
  try {
    for (const item of await navigator.clipboard.read()) {
      const type = item.types.find((name) => name.startsWith("image/"));
      if (type && take([new File([await item.getType(type)], "pasted.png", { type })])) return;
    }
    say(nothing);
  } catch {
    say("This browser does not hand over the clipboard here: press Ctrl+V, or ⌘V.");
  }
}

/** Ask for the camera before its box opens, so that a refusal is told in words. */
async function camera() {
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ video: true });
    stream.getTracks().forEach((track) => track.stop());
  } catch (error) {
    return say(unetLive.refusal(error));
  }
  trigger("camera");
  // Its own first click is made for the visitor, who has asked once already.
  for (let tries = 0; tries < 50 && !document.querySelector("#camera video[src], #camera video:not(.hide)"); tries++) {
    document.querySelector('#camera [title="grant webcam access"] button')?.click();
    await new Promise((done) => setTimeout(done, 200));
  }
}

const ways = { choose: () => document.querySelector("#picture input[type=file]")?.click(), camera, paste };
element.addEventListener("click", (event) => ways[event.target.closest("[data-way]")?.dataset.way]?.());

// A picture may be dropped or pasted anywhere on the page, but where files have a box of their own.
function arrives(files, event) {
  if (event.target.closest?.("#truth, #batch-files") || !take(files)) return;
  event.preventDefault();
  event.stopPropagation();
}
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => arrives(event.dataTransfer?.files, event), true);
document.addEventListener("paste", (event) => arrives(event.clipboardData?.files, event), true);
