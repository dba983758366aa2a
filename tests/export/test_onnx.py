import copy
import sys
from types import SimpleNamespace

import pytest
import torch
from tiny_detectors import FEATURE_ENCODERS, TINY, make_classifier

from hf_gradalign.export import OnnxMismatchError, export_onnx, export_program
from hf_gradalign.export import onnx as exporting
from hf_gradalign.models import HEADS, SpoofDetectorConfig, SpoofDetectorForAudioClassification, small_wav2vec2_config

onnxruntime, _ = pytest.importorskip("onnxruntime"), pytest.importorskip("onnxscript")
N_SAMPLES = 4000
PROGRAM_MARKS = {"linear": [], "aasist": [pytest.mark.slow, pytest.mark.long]}  # others are slow
BATCHES = (1, 2, 5)
SMALL_HEADS = {
    "aasist": {"channels": (4, 4)},
    "conformer_tcm": {"size": 16, "num_blocks": 1, "kernel_size": 5},
    "linear": {},
    "mamba": {"size": 16, "num_blocks": 2},
    "mhfa": {"num_heads": 4, "compression_size": 8, "embedding_size": 8},
    "nes2net": {"num_groups": 4, "num_scales": 2},
    "sls": {"n_frames": 15},  # clips have 12: some are repeated
}


def make_detector(head, options=None, attention=None):
    torch.manual_seed(0)
    backbone = small_wav2vec2_config(
        conv_dim=(8,) * 5,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
    )
    config = SpoofDetectorConfig(backbone, head, SMALL_HEADS[head] if options is None else options)
    config._attn_implementation = attention
    return SpoofDetectorForAudioClassification(config).eval()


@torch.no_grad()
def check(run, detector, n_samples=N_SAMPLES):
    """Check that `run` returns the logits of the detector for several batch sizes, and that they differ by clip."""
    for batch in BATCHES:
        waveforms = torch.randn(batch, n_samples)
        logits = detector(waveforms).logits
        torch.testing.assert_close(run(waveforms), logits, atol=1e-5, rtol=0)
        assert batch == 1 or (logits[0] - logits[1]).abs().max() > 1e-4


def by_onnxruntime(path):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda waveforms: torch.from_numpy(session.run(["logits"], {"input_values": waveforms.numpy()})[0])


@pytest.mark.parametrize(
    "head", [pytest.param(head, marks=PROGRAM_MARKS.get(head, [pytest.mark.slow])) for head in HEADS]
)
def test_program_gives_the_models_logits(head):
    detector = make_detector(head)
    check(export_program(detector, n_samples=N_SAMPLES).module(), detector)


@pytest.mark.parametrize(
    "head",
    [pytest.param(h, marks=[pytest.mark.slow] if h == "mhfa" else [pytest.mark.slow, pytest.mark.long]) for h in HEADS],
)
def test_onnx_gives_the_models_logits(head, tmp_path):
    detector = make_detector(head)
    report = export_onnx(detector, tmp_path / "new" / "detector.onnx", n_samples=N_SAMPLES)
    assert report.path == tmp_path / "new" / "detector.onnx"
    assert [path.name for path in report.path.parent.iterdir()] == ["detector.onnx"]
    assert report.size == report.path.stat().st_size
    assert report.opset >= 18
    assert (report.n_samples, report.check_batches) == (N_SAMPLES, (1, 3))
    assert 0 <= report.largest_difference < 1e-5
    check(by_onnxruntime(report.path), detector)


def make_raw_detector(options):
    torch.manual_seed(0)
    return SpoofDetectorForAudioClassification(SpoofDetectorConfig({"model_type": "sinc"}, "aasist", options)).eval()


@pytest.mark.long
@pytest.mark.slow
def test_aasist_on_raw_waveforms(tmp_path):
    detector = make_raw_detector({"channels": (4, 4), "graph_sizes": (8, 4)})
    check(by_onnxruntime(export_onnx(detector, tmp_path / "detector.onnx", n_samples=N_SAMPLES).path), detector)


@pytest.mark.long
@pytest.mark.slow
def test_aasist_on_raw_waveforms_of_its_published_size(tmp_path):
    detector = make_raw_detector({})
    report = export_onnx(detector, tmp_path / "detector.onnx", n_samples=64_600)
    check(by_onnxruntime(report.path), detector, report.n_samples)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("head", [head for head in HEADS if head != "mamba"])  # its graph takes minutes
def test_heads_of_their_published_sizes(head, tmp_path):
    detector = make_detector(head, SMALL_HEADS[head] if head == "nes2net" else {})  # the encoder is too narrow
    report = export_onnx(detector, tmp_path / "detector.onnx")
    check(by_onnxruntime(report.path), detector, report.n_samples)


@pytest.mark.slow
def test_large_models_have_a_separate_file_for_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "_ONE_FILE_BYTES", 1)
    detector = make_detector("linear")
    report = export_onnx(detector, tmp_path / "detector.onnx", n_samples=N_SAMPLES)
    assert {path.name for path in tmp_path.iterdir()} == {"detector.onnx", "detector.onnx.data"}
    assert report.size == sum(path.stat().st_size for path in tmp_path.iterdir())
    check(by_onnxruntime(report.path), detector)


def test_the_model_stays_as_it_is():
    detector = make_detector("linear", attention="sdpa").train()
    detector.backbone.encoder.eval()
    detector.freeze_feature_encoder()
    modes = [module.training for module in detector.modules()]
    trained = [parameter.requires_grad for parameter in detector.parameters()]
    config, weights = detector.config.to_dict(), copy.deepcopy(detector.state_dict())
    program = export_program(detector, n_samples=N_SAMPLES)
    assert [module.training for module in detector.modules()] == modes
    assert [parameter.requires_grad for parameter in detector.parameters()] == trained
    assert detector.config.to_dict() == config
    assert detector.config._attn_implementation == detector.backbone.config._attn_implementation == "sdpa"
    torch.testing.assert_close(detector.state_dict(), weights, atol=0, rtol=0)
    logits = program.module()(torch.ones(1, N_SAMPLES))
    torch.nn.init.zeros_(next(detector.head.parameters()))
    assert torch.equal(program.module()(torch.ones(1, N_SAMPLES)), logits)


def test_a_file_that_disagrees_is_not_left(tmp_path, monkeypatch):
    class Session:
        def __init__(self, path, providers):
            pass

        def run(self, names, inputs):
            return [torch.full((len(inputs["input_values"]), 2), torch.nan).numpy()]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    monkeypatch.setattr(torch.export, "export", lambda *args, **kwargs: SimpleNamespace(state_dict={}))
    program = SimpleNamespace(save=lambda *args, **kwargs: None)
    monkeypatch.setattr(torch.onnx, "export", lambda *args, **kwargs: program)
    with pytest.raises(OnnxMismatchError, match=r"by up to nan, more than 0.001: .*detector.onnx was not written"):
        export_onnx(make_detector("linear"), tmp_path / "detector.onnx", n_samples=N_SAMPLES)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_without_a_package(package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"needs {package}, .*: pip install onnx onnxruntime onnxscript"):
        export_onnx(make_detector("linear"), tmp_path / "detector.onnx")


@pytest.mark.parametrize(
    ("labels", "chosen", "expected"),
    [
        (["real", "fake"], None, lambda z: z.flip(1)),
        (["fake"], None, lambda z: torch.cat([z / 2, -z / 2], 1)),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                (["spoof", "bonafide"], None, lambda z: z),
                (["LABEL_0", "LABEL_1"], "LABEL_0", lambda z: z.flip(1)),
                (["bonafide"], None, lambda z: torch.cat([-z / 2, z / 2], 1)),
                (["LABEL_0"], "none", lambda z: torch.cat([z / 2, -z / 2], 1)),
            )
        ),
    ],
)
def test_logits_are_for_spoof_and_bona_fide(labels, chosen, expected):
    detector = make_labeled(labels)
    waveforms = torch.randn(2, N_SAMPLES)
    program = export_program(detector, n_samples=N_SAMPLES, bonafide_label=chosen)
    with torch.no_grad():
        logits = detector(waveforms).logits
    torch.testing.assert_close(program.module()(waveforms), expected(logits), atol=1e-5, rtol=0)


def make_labeled(labels):
    options = {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}
    config = make_detector("linear").config
    return SpoofDetectorForAudioClassification(
        SpoofDetectorConfig(config.backbone_config, "linear", config.head_options, **options)
    ).eval()


@pytest.mark.slow
def test_the_file_has_logits_for_spoof_and_bona_fide(tmp_path):
    detector = make_labeled(["real"])
    report = export_onnx(detector, tmp_path / "detector.onnx", n_samples=N_SAMPLES)
    waveforms = torch.randn(2, N_SAMPLES)
    with torch.no_grad():
        half = detector(waveforms).logits / 2
    torch.testing.assert_close(by_onnxruntime(report.path)(waveforms), torch.cat([-half, half], 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("labels", "message"),
    [(["LABEL_0", "LABEL_1"], r"bona fide.*bonafide_label"), (["a", "b", "c"], "only models with one or two outputs")],
)
def test_outputs_that_may_mean_anything_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        export_program(make_labeled(labels), n_samples=N_SAMPLES)


@pytest.mark.parametrize(
    ("family", "message"),
    [
        ("whisper", "a WhisperForAudioClassification takes input_features, but only models that take waveforms can be"),
        ("audio-spectrogram-transformer", "a ASTForAudioClassification does not accept waveforms of 4000 samples"),
    ],
)
def test_models_of_features_are_refused(family, message):
    sizes = FEATURE_ENCODERS.get(family) or TINY | {"max_length": 32, "num_mel_bins": 32}
    with pytest.raises(ValueError, match=message):
        export_program(make_classifier(family, **sizes), n_samples=N_SAMPLES)


def test_a_module_with_a_state_of_its_own_is_not_quantized(monkeypatch):
    detector = make_detector("linear")
    monkeypatch.setattr(type(detector.head), "get_extra_state", lambda head: {"version": 1})
    assert isinstance(detector.state_dict()["head._extra_state"], dict)
    export_program(detector, n_samples=N_SAMPLES)


def test_errors(tmp_path):
    detector = make_detector("linear")
    with pytest.raises(ValueError, match="does not accept waveforms of 100 samples"):
        export_program(detector, n_samples=100)
    with pytest.raises(ValueError, match="does not accept waveforms of -1 samples"):
        export_program(detector, n_samples=-1)
    with pytest.raises(ValueError, match=r"one or more batch sizes of at least 1, got \(\)"):
        export_onnx(detector, tmp_path / "detector.onnx", check_batches=())
    quantized = torch.ao.quantization.quantize_dynamic(detector, {torch.nn.Linear})  # a copy
    with pytest.raises(ValueError, match="this one is quantized: export the model before it is quantized, then"):
        export_onnx(quantized, tmp_path / "detector.onnx")
    with pytest.raises(ValueError, match=r"this one has bfloat16: call model.float\(\)"):
        export_program(detector.bfloat16(), n_samples=N_SAMPLES)
