// What is wrong with a page as it is laid out now, a sentence each.  `grids`: the colors that frames of plots have.
(grids) => {
  const ROOM = 1; // px: rounding
  const SHAPES = "path, use, rect, circle, ellipse, line, polyline, polygon, image";
  const printed = matchMedia("print").matches;
  const page = document.documentElement;

  const excerpt = (node) => `"${node.textContent.trim().replace(/\s+/g, " ").slice(0, 40)}"`;
  const shown = (element) => element.checkVisibility();
  const box = (element) => element.getBoundingClientRect();
  const sticksOut = (inner, outer) => inner.left < outer.left - ROOM || inner.right > outer.right + ROOM;
  const touch = (a, b, room = 0) =>
    a.left <= b.right + room && b.left <= a.right + room && a.top <= b.bottom + room && b.top <= a.bottom + room;
  const center = (rect) => ({ x: (rect.left + rect.right) / 2, y: (rect.top + rect.bottom) / 2 });
  const holds = (rect, { x, y }) => rect.left <= x && x <= rect.right && rect.top <= y && y <= rect.bottom;
  const union = (a, b) => ({
    left: Math.min(a.left, b.left), right: Math.max(a.right, b.right),
    top: Math.min(a.top, b.top), bottom: Math.max(a.bottom, b.bottom),
  });

  // (r, g, b, alpha) of a computed color; null of none and of what is no color
  const color = (text) => {
    const numbers = /^rgba?\(/.test(text) ? text.match(/[\d.]+/g).map(Number) : null;
    return numbers && [...numbers, 1].slice(0, 4);
  };
  const visible = (text) => color(text)?.[3] > 0;
  // WCAG 2: relative luminance and contrast ratio
  const luminance = ([r, g, b]) => {
    const linear = [r, g, b].map((c) => (c <= 10.31 ? c / 3294.6 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const contrast = (a, b) => {
    const [dark, light] = [luminance(a), luminance(b)].sort((x, y) => x - y);
    return (light + 0.05) / (dark + 0.05);
  };

  const textNodes = () => {
    const found = [];
    const walker = document.createTreeWalker(page, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const node = walker.currentNode;
      const parent = node.parentElement;
      if (node.data.trim() && !parent.closest("svg, script, style") && shown(parent)) found.push(node);
    }
    return found;
  };
  const textBox = (node) => {
    const range = document.createRange();
    range.selectNodeContents(node);
    return range.getBoundingClientRect();
  };

  // Scroll boxes let a reader reach what does not fit; paper has none.
  const boundary = (element) => {
    for (let outer = element; outer && outer !== document.body && outer !== page; outer = outer.parentElement) {
      const overflow = getComputedStyle(outer).overflowX;
      if (/auto|scroll/.test(overflow) && !printed) return null;
      if (overflow !== "visible") return box(outer);
    }
    return { left: 0, right: page.clientWidth };
  };
  const cutOff = () => {
    const pieces = textNodes().map((node) => [textBox(node), node.parentElement, excerpt(node)]);
    for (const element of document.querySelectorAll("svg, img, canvas")) {
      if (element !== page && shown(element)) pieces.push([box(element), element, `a picture, ${element.tagName}`]);
    }
    return pieces.filter(([rect, element]) => {
      const outer = rect.width && boundary(element);
      return outer && sticksOut(rect, outer);
    }).map(([, , what]) => `${what} is cut off`);
  };

  const overflow = () =>
    page.scrollWidth > page.clientWidth + ROOM
      ? [`the page is ${page.scrollWidth} px wide where ${page.clientWidth} px are to be seen`] : [];

  const darkPaper = () => {
    const dark = [...document.querySelectorAll("*")].filter((element) => {
      const back = color(getComputedStyle(element).backgroundColor);
      return back && back[3] > 0.5 && luminance(back) < 0.4 && box(element).width > page.clientWidth / 2;
    });
    return printed ? dark.map((element) => `${element.tagName.toLowerCase()} is dark on paper`) : [];
  };

  const painted = (element) => {
    const style = getComputedStyle(element);
    return [style.stroke, style.fill].filter(visible);
  };
  const frames = new Set(grids.map((hex) => {
    const probe = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    probe.style.fill = hex;
    page.append(probe);
    const found = getComputedStyle(probe).fill;
    probe.remove();
    return found;
  }));
  // Plots of a figure: what lines of the frame's color enclose; the whole figure where there are none.
  const panels = (lines, whole) => {
    const found = [];
    for (let rect of lines) {
      const neighbor = () => found.findIndex((other) => touch(rect, other, ROOM));
      for (let at = neighbor(); at >= 0; at = neighbor()) rect = union(rect, found.splice(at, 1)[0]);
      found.push(rect);
    }
    return found.length ? found : [whole];
  };

  const figure = (svg) => {
    const name = svg.getAttribute("aria-label") || "";
    const whole = box(svg);
    const called = name ? `figure "${name}"` : "a figure";
    const problems = [];
    const complain = (text) => problems.push(`${called} ${text}`);
    if (!name || svg.getAttribute("role") !== "img") complain("has no name for a screen reader");
    if (whole.width < 20 || whole.height < 20) complain("is not shown");

    const shapes = [...svg.querySelectorAll(SHAPES)]
      .filter((shape) => !shape.closest("defs, clipPath, pattern, marker, symbol"))
      .map((shape) => ({ rect: box(shape), colors: painted(shape), fill: getComputedStyle(shape).fill }))
      .filter(({ rect, colors }) => (rect.width || rect.height) && (colors.length || rect.width))
      .filter(({ rect }) => rect.width < whole.width - ROOM || rect.height < whole.height - ROOM);
    const isFrame = ({ colors }) => colors.length && colors.every((each) => frames.has(each));
    const marks = shapes.filter((shape) => shape.colors.length && !isFrame(shape));
    for (const panel of panels(shapes.filter(isFrame).map(({ rect }) => rect), whole)) {
      if (!marks.some(({ rect }) => holds(panel, center(rect)))) complain("has an empty plot");
    }

    const texts = [...svg.querySelectorAll("text")].filter((text) => text.textContent.trim());
    const boxes = texts.map(box);
    texts.forEach((text, index) => {
      const rect = boxes[index];
      const tall = rect.height / 4; // ascenders and descenders of two lines may meet
      if (sticksOut(rect, whole) || rect.top < whole.top - tall || rect.bottom > whole.bottom + tall)
        complain(`cuts off ${excerpt(text)}`);
      boxes.slice(0, index).forEach((other, before) => {
        const [left, right] = [other.left + ROOM, other.right - ROOM];
        if (touch({ left, right, top: other.top + tall, bottom: other.bottom - tall }, rect)) complain(`writes ${excerpt(text)} over ${excerpt(texts[before])}`);
      });
      const below = shapes.filter((shape) => visible(shape.fill) && holds(shape.rect, center(rect))).at(-1)?.fill;
      const ratio = contrast(color(getComputedStyle(text).fill), color(below ?? background(svg)));
      if (ratio < 4.5) complain(`has ${excerpt(text)} with a contrast of ${ratio.toFixed(1)}`);
    });
    return problems;
  };
  const background = (element) => {
    for (let outer = element; outer; outer = outer.parentElement) {
      const found = getComputedStyle(outer).backgroundColor;
      if (visible(found)) return found;
    }
    return "rgb(255, 255, 255)";
  };

  const outermost = (svg) => !svg.parentElement?.closest("svg");
  const figures = [...document.querySelectorAll("svg")].filter((svg) => shown(svg) && outermost(svg));
  return [...overflow(), ...cutOff(), ...darkPaper(), ...figures.flatMap(figure)];
}
