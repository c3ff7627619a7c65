// The confusion matrix of many classes: a picture to point at; the tables beside it say the same.
{
  const data = find("#matrix-data");
  const canvas = find("#matrix");
  if (data && canvas) {
    const { names, right, shown, mistakes } = JSON.parse(data.textContent);
    const says = find("#matrix-says");
    let chosen = -1;

    const scale = () => canvas.clientWidth / names.length;
    const radius = (count) => Math.max(1.6, scale() / 2) * Math.min(3, Math.sqrt(count));
    const place = ([, label, named]) => [(named + 0.5) * scale(), (label + 0.5) * scale()];

    function draw() {
      const style = getComputedStyle(document.documentElement);
      const probe = getComputedStyle(canvas);
      const side = canvas.clientWidth;
      const sharp = devicePixelRatio || 1;
      canvas.width = canvas.height = Math.round(side * sharp);
      const pen = canvas.getContext("2d");
      pen.scale(sharp, sharp);
      pen.clearRect(0, 0, side, side);
      const ink = probe.color;
      const [good, bad] = ["--right", "--wrong"].map((name) => resolved(style.getPropertyValue(name)));
      const step = scale();
      pen.strokeStyle = ink;
      pen.globalAlpha = 0.1;
      const apart = names.length > 500 ? Math.ceil(names.length / 10) : 50;
      pen.beginPath();
      for (let line = apart; line < names.length; line += apart) {
        pen.moveTo(line * step, 0);
        pen.lineTo(line * step, side);
        pen.moveTo(0, line * step);
        pen.lineTo(side, line * step);
      }
      pen.stroke();
      pen.fillStyle = good;
      for (let index = 0; index < names.length; index += 1) {
        if (!shown[index]) continue;
        pen.globalAlpha = 0.25 + (0.75 * right[index]) / shown[index];
        const size = Math.max(step, 1.5);
        pen.fillRect(index * step, index * step, size, size);
      }
      pen.fillStyle = bad;
      pen.globalAlpha = 0.85;
      for (let index = mistakes.length - 1; index >= 0; index -= 1) {
        const [x, y] = place(mistakes[index]);
        pen.beginPath();
        pen.arc(x, y, radius(mistakes[index][0]), 0, 2 * Math.PI);
        pen.fill();
      }
      if (chosen >= 0) {
        const [x, y] = place(mistakes[chosen]);
        pen.strokeStyle = ink;
        pen.globalAlpha = 0.6;
        pen.beginPath();
        pen.moveTo(0, y);
        pen.lineTo(side, y);
        pen.moveTo(x, 0);
        pen.lineTo(x, side);
        pen.stroke();
        pen.globalAlpha = 1;
        pen.lineWidth = 2;
        pen.beginPath();
        pen.arc(x, y, radius(mistakes[chosen][0]) + 4, 0, 2 * Math.PI);
        pen.stroke();
      }
    }

    // A canvas does not know light-dark(): let an element compute it.
    function resolved(color) {
      const element = document.createElement("span");
      element.style.color = color;
      canvas.after(element);
      const found = getComputedStyle(element).color;
      element.remove();
      return found;
    }

    function choose(index) {
      if (index === chosen) return;
      chosen = index;
      if (index >= 0) {
        const [count, label, named] = mistakes[index];
        const bold = (text) => Object.assign(document.createElement("b"), { textContent: text });
        says.replaceChildren(bold(names[label]), " was taken for ", bold(names[named]), ` in ${count} of ${shown[label]} photos`);
      }
      draw();
    }

    canvas.addEventListener("pointermove", (event) => {
      let best = -1;
      let nearest = 12 ** 2;
      mistakes.forEach((mistake, index) => {
        const [x, y] = place(mistake);
        const distance = (x - event.offsetX) ** 2 + (y - event.offsetY) ** 2;
        if (distance < nearest) [best, nearest] = [index, distance];
      });
      if (best >= 0) choose(best);
    });
    canvas.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!step || !mistakes.length) return;
      event.preventDefault();
      choose((chosen + step + mistakes.length) % mistakes.length);
    });
    themes.push(draw);
    new ResizeObserver(draw).observe(canvas);
  }
}
