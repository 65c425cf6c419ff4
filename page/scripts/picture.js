// The ways a picture comes in. Chosen, dropped and pasted files are all uploaded here; the path is the value.
const note = element.querySelector(".note");
const input = element.querySelector("input");
const NO_PICTURE = "That is no picture: choose a JPEG, PNG, TIFF, HEIC or the like.";
let noteTimer;
let turn = 0; // counts the files; one that is uploaded in a later turn is not wanted any more
let opening; // path of the upload that the server was asked to open last

function say(text, seconds = 8) {
  note.textContent = text;
  clearTimeout(noteTimer);
  noteTimer = setTimeout(() => (note.textContent = ""), 1000 * seconds);
}

/** Upload the first picture among ``files``, and have it opened. */
async function take(files) {
  // A browser may not know the type of HEIC or PPM.
  const picture = [...files].find((file) => file.type.startsWith("image/") || file.type === "");
  if (!picture) return say(NO_PICTURE);
  const mine = ++turn;
  const slow = setTimeout(() => mine === turn && say(`Uploading ${picture.name} …`, 3600), 500);
  try {
    const { path } = await upload(picture);
    if (mine !== turn) return;
    say("");
    props.value = { path, orig_name: picture.name, meta: { _type: "gradio.FileData" } };
    trigger("picture");
  } catch (error) {
    if (mine === turn) say(`${picture.name} did not arrive (${error?.message ?? error}): try it again.`);
  } finally {
    clearTimeout(slow);
  }
}

window.unetPicture = {
  sent: (value) => ((opening = value.path), value),
  again: () => props.value && props.value.path !== opening && trigger("picture"),
};

async function paste() {
  const nothing = "There is no picture in the clipboard: copy one first.";
  try {
    for (const item of await navigator.clipboard.read()) {
      const type = item.types.find((name) => name.startsWith("image/"));
      if (type) return take([new File([await item.getType(type)], "pasted.png", { type })]);
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

const ways = { choose: () => input.click(), camera, paste };
element.addEventListener("click", (event) => ways[event.target.closest("[data-way]")?.dataset.way]?.());
input.addEventListener("change", () => {
  take([...input.files]);
  input.value = ""; // so that the same file can be chosen again
});

// A picture may be dropped or pasted anywhere on the page, but where files have a box of their own.
function arrives(files, event) {
  if (!files?.length || event.target.closest?.("#truth, #batch-files")) return;
  event.preventDefault();
  event.stopPropagation();
  take(files);
}
// Not even beside such a box may the browser leave the page for a file.
for (const kind of ["dragover", "drop"]) {
  document.addEventListener(kind, (event) => event.dataTransfer?.types.includes("Files") && event.preventDefault());
}
document.addEventListener("drop", (event) => arrives(event.dataTransfer?.files, event), true);
document.addEventListener("paste", (event) => arrives(event.clipboardData?.files, event), true);
