// Reads messages to Teams, one a line, with Microsoft's own library, and writes for each what came of it: what the library
// complains of, the card as it understood it, and the elements and the text it renders.
//
// Argument: the directory with the libraries.

const { createRequire } = require("module");
const library = createRequire(`${process.argv[2]}/`);
const { Window } = library("happy-dom");
const window = new Window();
Object.assign(globalThis, { window, document: window.document, HTMLElement: window.HTMLElement });
const { AdaptiveCard, SerializationContext, Versions } = library("adaptivecards/dist/adaptivecards.js");

// What Teams would read as Markdown shows as a link.
AdaptiveCard.onProcessMarkdown = (text, result) => {
  Object.assign(result, { outputHtml: `<a href="x">${text}</a>`, didProcess: true });
};

function read(message) {
  const [attachment] = message.attachments;
  const context = new SerializationContext(Versions.v1_4);
  const card = new AdaptiveCard();
  card.parse(attachment.content, context);
  const rendered = card.render();
  const complaints = [...Array(context.eventCount).keys()].map((at) => context.getEventAt(at));
  return {
    kind: attachment.contentType,
    complaints: complaints.concat(card.validateProperties().validationEvents).map((event) => event.message),
    understood: card.toJSON(),
    elements: [...rendered.querySelectorAll("*")].map((element) => element.tagName),
    blocks: [...rendered.querySelectorAll(".ac-richTextBlock")].map((block) => block.textContent),
  };
}

for (const line of require("fs").readFileSync(0, "utf8").split("\n").filter(Boolean)) {
  console.log(JSON.stringify(read(JSON.parse(line))));
}
