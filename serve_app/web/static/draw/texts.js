// What the page says, in English and Chinese.

const TEXTS = {
  en: {
    title: "Draw", language: "Language", tools: "Tools", tool: "Tool", brush: "Brush", brushTitle: "Draw (B)", eraser: "Eraser", eraserTitle: "Erase (E)",
    size: "Size", colour: "Colour", undo: "Undo", undoTitle: "Undo (Ctrl+Z)", redo: "Redo", redoTitle: "Redo (Ctrl+Shift+Z)",
    clear: "Clear", clearTitle: "Clear the drawing (Delete)", beneath: "Picture beneath", removeBeneath: "Remove picture",
    yours: "Your drawing", sketchLabel: "Canvas for your drawing", picture: "The picture", resultLabel: "The picture of your drawing", progress: "Progress",
    style: "Style", prompt: "What it shows", strength: "Strength", seed: "Seed", lock: "keep the seed", again: "Another one",
    againTitle: "Another picture of the same drawing (R)", overlay: "one over the other", opacity: "Drawing shows through",
    download: "Download", downloadTitle: "Save the picture (S)", keys: "Keys",
    connecting: "connecting …", connected: "ready: draw something", reconnecting: "connection lost, coming back …", expired: "the session had ended: a new one has begun",
    drawing: "drawing …", done: "up to date", slow: "no picture yet: what paints is away or busy; your drawing waits for it", waiting: "full: you are number {place} in line", noStyles: "there are no styles: put workflow files into workflows/styles",
    noPicture: "this file is no picture that a browser can show", noService: "nobody answers at /api/styles: {reason}", ms: "{ms} ms",
    keyList: [["B / E", "brush / eraser"], ["[ / ]", "smaller / larger"], ["Ctrl+Z", "undo"], ["Ctrl+Shift+Z, Ctrl+Y", "redo"], ["Delete", "clear"],
      ["R", "another one"], ["O", "one over the other"], ["S", "download"], ["1 … 9", "style"]],
  },
  zh: {
    title: "绘画", language: "语言", tools: "工具", tool: "工具", brush: "画笔", brushTitle: "画笔 (B)", eraser: "橡皮", eraserTitle: "橡皮 (E)",
    size: "粗细", colour: "颜色", undo: "撤销", undoTitle: "撤销 (Ctrl+Z)", redo: "重做", redoTitle: "重做 (Ctrl+Shift+Z)",
    clear: "清空", clearTitle: "清空画布 (Delete)", beneath: "垫底图片", removeBeneath: "移除图片",
    yours: "你的草图", sketchLabel: "草图画布", picture: "生成的图片", resultLabel: "由草图生成的图片", progress: "进度",
    style: "风格", prompt: "画面内容", strength: "强度", seed: "种子", lock: "固定种子", again: "换一张",
    againTitle: "同一草图换一张图 (R)", overlay: "叠加显示", opacity: "草图透明度",
    download: "下载", downloadTitle: "保存图片 (S)", keys: "快捷键",
    connecting: "正在连接…", connected: "就绪，开始画吧", reconnecting: "连接中断，正在重连…", expired: "会话已结束，已开始新会话",
    drawing: "正在生成…", done: "已是最新", slow: "还没有图片：绘图后端忙或暂不可用，草图在等待", waiting: "人数已满，你排在第 {place} 位", noStyles: "没有风格：请把工作流文件放入 workflows/styles",
    noPicture: "浏览器无法显示这个文件", noService: "/api/styles 没有响应：{reason}", ms: "{ms} 毫秒",
    keyList: [["B / E", "画笔 / 橡皮"], ["[ / ]", "细 / 粗"], ["Ctrl+Z", "撤销"], ["Ctrl+Shift+Z, Ctrl+Y", "重做"], ["Delete", "清空"],
      ["R", "换一张"], ["O", "叠加显示"], ["S", "下载"], ["1 … 9", "风格"]],
  },
};

let language = "en";

export function text(key, values = {}) {
  return Object.entries(values).reduce((said, [name, value]) => said.replace(`{${name}}`, value), TEXTS[language][key]);
}

export function chooseLanguage(wanted) {
  language = wanted in TEXTS ? wanted : "en";
  document.documentElement.lang = language === "zh" ? "zh-Hans" : "en";
  for (const element of document.querySelectorAll("[data-text]")) element.textContent = text(element.dataset.text);
  for (const element of document.querySelectorAll("[data-title]")) element.title = text(element.dataset.title);
  for (const element of document.querySelectorAll("[data-label]")) element.setAttribute("aria-label", text(element.dataset.label));
  document.getElementById("keys").replaceChildren(...text("keyList").flatMap(([key, does]) => [["dt", key], ["dd", does]]).map(([tag, said]) => {
    const element = document.createElement(tag);
    element.textContent = said;
    return element;
  }));
  return language;
}
