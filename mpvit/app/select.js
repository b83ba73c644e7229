// One listener for all detections: their buttons are new with every value.
let clicked = null;
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-detection]');
  if (button) {
    clicked = button.dataset.detection;
    trigger('select', { detection: Number(clicked) });
  }
});
// Keep the keyboard where it was.
watch('value', () => {
  element.querySelector(`[data-detection="${clicked}"]`)?.focus({ preventScroll: true });
  clicked = null;
});
