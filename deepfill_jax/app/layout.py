"""The layout of the web UI: gradio components, texts and colours."""

import html
from pathlib import Path

import gradio as gr

from deepfill_jax.app.filling import Summary
from deepfill_jax.app.painting import LINE
from deepfill_jax.app.restricted import Editor
from deepfill_jax.app.service import Service
from deepfill_jax.inpaint.classical import Classical
from deepfill_jax.inpaint.windows import BUDGET
from deepfill_jax.pictures.preview import HOLE, OPACITY

EXAMPLES = ("astronaut", "chelsea", "coffee")  # Photographs of scikit-image, if it is installed.
# Labels of the strategies.
STRATEGIES = {
    "auto": "Automatic",
    "original": "Whole image, full size (original)",
    "resize": "Whole image, scaled down (resize)",
    "crop": "Around each hole (crop)",
}
CHOOSE = "Choose an image first."


class Layout:
    """The components of the web UI, as attributes, displayed in the order of their creation."""

    def __init__(self, service: Service):
        """Creates the components inside a `gr.Blocks`."""
        first = next(iter(service.models))
        self.title = gr.Markdown(title(service, first), elem_id="title")
        with gr.Row():
            with gr.Column(scale=3, min_width=340):
                self._make_sources(service, first)
            with gr.Column(scale=2, min_width=340):
                self.run = gr.Button(
                    "Fill", variant="primary", size="lg", interactive=False, elem_id="fill"
                )
                self.cancel = gr.Button("Cancel", size="sm", visible=False, elem_id="cancel")
                self.status = gr.Markdown(CHOOSE, elem_id="status")
                self._make_result()
                self._make_options(service, first)

    def _make_sources(self, service: Service, first: str) -> None:
        self.upload = gr.File(
            label="Image",
            file_types=["image", ".heic", ".heif", ".hif", ".avif"],
            height=150,
            elem_id="upload",
        )
        self.example = gr.Dataset(
            components=[gr.Image(visible=False)],
            samples=[[str(path)] for path in examples()],
            type="index",
            label="Examples",
            visible=bool(examples()),
            elem_id="examples",
        )
        with gr.Column(visible=False) as self.easel:
            self.editor = Editor(
                label="Paint the region to fill",
                sources=(),
                transforms=(),
                layers=False,
                brush=brush(service, first),
                eraser=gr.Eraser(default_size=24),
                buttons=["fullscreen"],
                height="min(540px, 95vw)",
                elem_id="editor",
            )
            with gr.Row():
                self.mask = gr.UploadButton(
                    "Upload a mask", file_types=["image"], size="sm", elem_id="mask"
                )
                self.unmask = gr.Button(
                    "Remove the uploaded mask", size="sm", visible=False, elem_id="unmask"
                )
                self.start_over = gr.Button("Start over", size="sm", elem_id="start-over")
            self._make_mask_options()

    def _make_mask_options(self) -> None:
        with gr.Accordion("How the uploaded mask is read", open=False, elem_id="mask-options"):
            self.threshold = gr.Slider(
                *(0, 0.95, 0.5),
                step=0.05,
                label="Threshold",
                info="The hole is brighter than this share of white; 0 for masks of class numbers.",
            )
            self.orientation = gr.Radio(
                [
                    ("by the size", "auto"),
                    ("upright, as shown", "upright"),
                    ("as the camera stored the photograph", "stored"),
                ],
                value="auto",
                label="Orientation",
                info="For masks of rotated photographs.",
            )
            self.unchecked = gr.Checkbox(
                False,
                label="Use the mask unchecked",
                info="Also if it is empty or white, or looks like class numbers.",
            )

    def _make_result(self) -> None:
        with gr.Column(visible=False) as self.result:
            self.slider = gr.ImageSlider(
                label="Before and after",
                interactive=False,
                buttons=["fullscreen"],
                elem_id="result",
            )
            with gr.Row():
                self.png = gr.DownloadButton("Download PNG", elem_id="png")
                self.own = gr.DownloadButton(visible=False, elem_id="own")
                self.hole = gr.DownloadButton("Download mask", elem_id="hole")
            self.again = gr.Button("Continue with the result", elem_id="again")

    def _make_options(self, service: Service, first: str) -> None:
        names = list(service.models)
        choices = [(choice(service, name), name) for name in names]
        self.model = gr.Dropdown(choices, value=first, label="Model", visible=len(names) > 1)
        self.about = gr.Markdown(about(service, first), elem_id="about")
        self.strategy = gr.Radio(
            [(words, name) for name, words in STRATEGIES.items()],
            value="auto",
            label="Image size",
            info="What the network sees of a large image; scaling down loses details.",
        )
        self.budget = gr.Slider(
            *(1, 128, BUDGET),
            step=1,
            label="Work for thin holes",
            info="Megapixels that the network processes at most for a large image (automatic "
            "only); with less, many thin holes are filled faster, but softer.",
        )
        self.detail = gr.Checkbox(
            True,
            label="Copy detail",
            info="Large holes are filled at a smaller scale, and get detail from the photograph.",
        )
        self.seamless = gr.Checkbox(
            True,
            label="Match colors at the border",
            info="The fill continues the colors around the hole; off: the network's own colors.",
        )
        self.dilate = gr.Slider(
            *(0, 64, 0),
            step=1,
            label="Grow the hole (dilate)",
            info="Pixels that are filled around the painted region as well, such as soft edges.",
        )
        self.feather = gr.Slider(
            *(0, 64, 0),
            step=1,
            label="Soften the border (feather)",
            info="Pixels over which the result blends into the image; at most the growth above.",
        )
        with gr.Accordion("Extend the image", open=False, elem_id="extend"):
            with gr.Row(elem_id="sides"):
                self.sides = [
                    gr.Number(0, label=side, minimum=0, precision=0, min_width=60)
                    for side in ("Top", "Right", "Bottom", "Left")
                ]


def brush(service: Service, model: str) -> gr.Brush:
    """Returns a model's brushes: one for the hole, and one for the sketch if it is guided."""
    colours = (HOLE, LINE) if service.guided(model) else (HOLE,)
    return gr.Brush(
        colors=[(f"rgb{colour}", OPACITY) for colour in colours],
        color_mode="fixed",
        default_size=24,
    )


def title(service: Service, model: str) -> str:
    """Returns the title and the instructions for a model, in Markdown."""
    instructions = "Paint over the object to remove, then press Fill."
    if service.guided(model):
        # HED's lines, on which guided models are trained, are 4 to 6 pixels thick at 178 px.
        instructions = (
            "Paint over the object to remove. To guide the result, draw a sketch on it in blue, "
            "with lines about 1/40 as thick as the face or scene is wide. Then press Fill."
        )
    return f"# deepfill\n{instructions} [Help](help)"


def choice(service: Service, model: str) -> str:
    """Returns the label of a model in the model menu: its name and its purpose."""
    purpose = service.purpose(model)
    return f"{model}: {purpose}" if purpose else model


def about(service: Service, model: str) -> str:
    """Returns the description of a model, in Markdown."""
    license = (service.license(model) or "not stated in its file").rstrip(".")
    purpose = service.purpose(model)
    start = f"Model **{html.escape(model)}**{f', for {html.escape(purpose)}' if purpose else ''}: "
    if isinstance(service.models[model], Classical):
        return f"{start}a classical method."
    return (
        f"{start}DeepFillv2, {service.models[model].architecture}, works best at "
        f"{service.working_size(model)} px. License of its weights: {html.escape(license)}."
    )


def summary(filled: Summary, working_size: int | None) -> str:
    """Describes in one sentence how a model with this working size inpainted an image."""
    scale = "filled at full size"
    if filled.scale < 1:
        several = "up to " if filled.strategy == "crop" else ""
        scale = f"filled at {working_size} px and enlarged {several}{1 / filled.scale:.1f} times"
    work = f"{filled.megapixels:.3g} megapixels processed in {filled.seconds:.1f} s"
    return f"{filled.size} pixels, {filled.strategy}, {scale}, {work}."


def examples() -> list[Path]:
    """Returns photographs that ship with scikit-image; an empty list if it is not installed."""
    try:
        from skimage import data
    except ImportError:
        return []
    folder = Path(data.__file__).parent
    return [path for name in EXAMPLES for path in folder.glob(f"{name}.*")]


def theme() -> gr.themes.Base:
    """Returns the theme of the web UI, with system fonts, which need no download."""
    return gr.themes.Soft(
        primary_hue="indigo",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )
