// A row of the table is opened in the viewer above.
element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-row]");
  if (!button) return;
  trigger("open", { row: Number(button.dataset.row) });
  document.getElementById("answer").scrollIntoView();
});
