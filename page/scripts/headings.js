// A network's card is opened by its button.
element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-card]");
  if (button) trigger("card", { side: Number(button.dataset.card) });
});
