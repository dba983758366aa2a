"""The page in a browser: what a person does, and what a person reads."""

import re
import threading

import numpy as np
import pytest
import soundfile
from browser import visit
from encoded_audio import encode

CHECK = "Check the recording"


@pytest.fixture
def person(browser, site):
    with visit(browser, site, viewport={"width": 1200, "height": 900}) as page:
        page.get_by_role("button", name=CHECK).wait_for()
        page.locator("#status [role=status]").first.wait_for()  # the page's own script has run
        yield page


def drop(page, name, data, place=None):
    """Drop a file on the page as from a file manager, by default where it asks for one."""
    transfer = page.evaluate_handle(
        """([name, numbers]) => {
            const transfer = new DataTransfer();
            const types = { txt: "text/plain", webm: "video/webm", caf: "" };
            const type = types[name.split(".").pop()] ?? "audio/wav";
            transfer.items.add(new File([new Uint8Array(numbers)], name, { type }));
            return transfer;
        }""",
        [name, list(data)],
    )
    place = place or page.get_by_role("button", name="Drop an audio file here to upload")
    for kind in ("dragenter", "dragover", "drop"):
        place.dispatch_event(kind, {"dataTransfer": transfer})


def choose(page, path):
    page.locator("#recording input[type=file]").set_input_files(str(path))


def is_loaded(page):
    page.get_by_role("button", name="Play", exact=True).wait_for()


def check(page):
    page.get_by_role("button", name=CHECK).click()


def status(page, text):
    """Wait for the status line that screen readers read out."""
    page.get_by_role("status").filter(has_text=text).first.wait_for(state="attached")


def clear(page):
    page.get_by_role("button", name="Clear").click()
    page.get_by_role("button", name="Drop an audio file here to upload").wait_for()


def read(path):
    with open(path, "rb") as file:
        return file.read()


def test_a_visit(person, examples, scorer):
    """Nothing, a spoofed clip, a genuine clip, and a text file that is renamed."""
    check(person)
    status(person, "Please choose a recording first")

    drop(person, "fake.wav", read(examples["Fake speech"]))
    is_loaded(person)
    check(person)
    verdict = person.get_by_role("region", name="Verdict of my-detector")
    verdict.wait_for()
    status(person, "Flagged as fake.")
    llr = scorer.predict(examples["Fake speech"])[0].llr
    text = verdict.inner_text()
    assert "Flagged as fake" in text
    assert f"log-likelihood ratio −{-llr:.2f}" in text
    assert "the probability that this one is genuine is" in text
    assert "windows lean fake" in text
    drop(person, "other.webm", b"sound", person.locator("#recording"))
    status(person, "Please clear the recording first.")
    assert verdict.get_by_role("img").get_attribute("aria-label").startswith("Scores over time.")

    clear(person)
    person.locator(".verdict").wait_for(state="detached")
    choose(person, examples["Genuine speech"])
    is_loaded(person)
    check(person)
    status(person, "Passes as genuine.")

    clear(person)
    drop(person, "speech.wav", b"This is no audio.")
    person.get_by_role("button", name="Clear").wait_for()
    check(person)
    status(person, "This file cannot be read as audio")
    assert person.locator(".verdict").count() == 0


@pytest.mark.slow
def test_files_that_are_refused_before_they_are_sent(person, tmp_path, site):
    sent = []
    person.on("request", lambda request: sent.append(request.url) if "upload" in request.url else None)
    (tmp_path / "large.wav").write_bytes(bytes(4_000_001))
    choose(person, tmp_path / "large.wav")
    status(person, "This file is too large (4.0 MB). The page takes up to 4 MB.")
    drop(person, "empty.wav", b"")
    status(person, "This file is empty (0 bytes)")
    drop(person, "notes.txt", b"hello")
    status(person, "This does not look like an audio file")
    assert not sent


@pytest.mark.slow
@pytest.mark.parametrize("is_dropped", [False, True])
def test_sound_that_browsers_take_for_a_video(person, tmp_path, examples, is_dropped):
    samples, _ = soundfile.read(examples["Fake speech"], dtype="float32")
    (tmp_path / "voice.webm").write_bytes(encode(samples, "webm", "libopus", rate=48_000))
    if is_dropped:
        drop(person, "voice.webm", read(tmp_path / "voice.webm"))
    else:
        choose(person, tmp_path / "voice.webm")
    is_loaded(person)
    check(person)
    status(person, "Flagged as fake.")
    clear(person)
    drop(person, "notes.caf", b"no sound")  # the browser knows no type for it
    person.get_by_role("button", name="Clear").wait_for()
    check(person)
    status(person, "This file cannot be read as audio")


@pytest.mark.slow
def test_a_file_name_is_no_html(person, tmp_path, examples):
    name = "<img src=x onerror=alert(1)>${alert(1)}{{7*7}}.wav"
    (tmp_path / name).write_bytes(read(examples["Fake speech"]))
    choose(person, tmp_path / name)
    is_loaded(person)
    check(person)
    status(person, "Flagged as fake.")
    (tmp_path / name).write_bytes(bytes(5_000_000))
    clear(person)
    choose(person, tmp_path / name)
    status(person, "This file is too large")
    assert person.locator("img[src=x]").count() == 0
    assert "49" not in person.locator("body").inner_text()


@pytest.mark.slow
def test_a_refusal_outlasts_a_slow_answer_of_the_server(person, examples):
    choose(person, examples["Fake speech"])
    is_loaded(person)
    check(person)
    status(person, "Flagged as fake.")
    held = []
    person.route("**/gradio_api/run/**", lambda route: held.append(route))
    clear(person)
    drop(person, "empty.wav", b"")
    status(person, "This file is empty (0 bytes)")
    while not held:
        person.wait_for_timeout(50)
    for request in held:
        request.continue_()
    person.unroute("**/gradio_api/run/**")
    status(person, "Choose a recording")
    status(person, "This file is empty (0 bytes)")
    choose(person, examples["Genuine speech"])
    is_loaded(person)
    assert person.get_by_text("This file is empty").count() == 0


@pytest.mark.slow
def test_verdicts_are_about_what_is_on_the_page(browser, make_page, make_scorer, examples):
    """Other recordings and settings are chosen while the model is busy, and answers of the server are late."""
    scorer, go_on = make_scorer(), threading.Event()
    scorer.model.register_forward_pre_hook(lambda *_: go_on.wait(120) and None)
    demo = make_page({"busy-detector": scorer})
    with visit(browser, demo.local_url) as first, visit(browser, demo.local_url) as second:

        def ask(page, name):
            page.get_by_role("button", name=name, exact=True).click()
            is_loaded(page)
            check(page)

        ask(first, "Fake speech")
        status(first, "Listening to the recording.")
        ask(second, "Fake speech")
        status(second, "Waiting for the model.")
        second.get_by_role("button", name="Cancel").click()
        status(second, "Cancelled. There is no verdict.")
        check(second)
        status(second, "Waiting for the model.")
        second.get_by_role("button", name="Genuine speech").click()
        status(second, "Choose a recording")
        first.get_by_text("Prior, costs").click()
        first.get_by_label("number input for Undecided within").fill("10")
        first.keyboard.press("Tab")
        check(second)
        status(second, "Waiting for the model.")
        go_on.set()
        status(first, "Undecided.")
        status(second, "Passes as genuine.")  # not that of the two checks that stood before this one

        go_on.clear()
        clear(second)  # otherwise, the recording that stands there would count as loaded
        ask(second, "Fake speech")
        status(second, "Listening to the recording.")
        check(first)
        status(first, "Waiting for the model.")
        first.locator(".verdict").wait_for(state="detached")  # it would contradict what Cancel says
        first.get_by_role("button", name="Cancel").click()
        status(first, "Cancelled. There is no verdict.")
        demo._queue.max_size = 0
        check(first)
        status(first, "The recording was not checked, perhaps because too many people wait.")
        demo._queue.max_size = 20

        held = []
        second.route("**/gradio_api/run/**", lambda route: held.append(route))
        second.get_by_role("button", name="Genuine speech").click()
        while not held:
            second.wait_for_timeout(50)
        held.pop().continue_()  # the example comes, and the server does not know it yet
        status(second, "Choose a recording")
        go_on.set()
        second.wait_for_timeout(2000)  # until the verdict on the other one has come
        status(second, "Choose a recording")
        second.locator(".verdict").wait_for(state="detached")  # it may be there for a moment
        second.unroute_all()


@pytest.mark.slow
def test_a_change_of_settings_that_outlasts_a_check(browser, make_page, make_scorer, examples, monkeypatch):
    scorer, go_on, is_shown = make_scorer(), threading.Event(), threading.Event()
    scorer.model.register_forward_pre_hook(lambda *_: go_on.wait(120) and None)
    demo = make_page({"busy-detector": scorer})
    change_settings = demo._actions.change_settings

    def answer_late(*inputs):
        shown = change_settings(*inputs)
        is_shown.wait(60)
        return shown

    monkeypatch.setattr(demo._actions, "change_settings", answer_late)
    with visit(browser, demo.local_url) as page:
        page.get_by_role("button", name="Fake speech", exact=True).click()
        is_loaded(page)
        check(page)
        status(page, "Listening to the recording.")
        page.get_by_text("Prior, costs").click()
        for band, verdict in (("10", "Undecided."), ("0", "Flagged as fake.")):
            page.get_by_label("number input for Undecided within").fill(band)
            page.keyboard.press("Tab")
            go_on.set()
            status(page, verdict)
            is_shown.set()


@pytest.mark.slow
def test_silence(person, tmp_path):
    soundfile.write(tmp_path / "silence.wav", np.zeros(16_000), 16_000)
    choose(person, tmp_path / "silence.wav")
    person.get_by_role("button", name="Clear").wait_for()
    check(person)
    status(person, "This recording is silent")


def write_long(path, examples, seconds=600):
    """A recording of this length, in an encoding that is small enough to upload: one genuine clip, then fake ones."""
    genuine, fake = (soundfile.read(examples[name])[0] for name in ("Genuine speech", "Fake speech"))
    samples = np.concatenate([genuine, np.resize(fake, 16_000 * seconds - len(genuine))])
    with soundfile.SoundFile(path, "w", 16_000, 1, "VORBIS", format="OGG", compression_level=1.0) as file:
        for start in range(0, len(samples), 160_000):
            file.write(samples[start : start + 160_000])


@pytest.mark.slow
def test_ten_minutes(person, tmp_path, examples):
    write_long(tmp_path / "long.ogg", examples)
    choose(person, tmp_path / "long.ogg")
    is_loaded(person)
    check(person)
    person.get_by_role("progressbar").wait_for()
    verdict = person.get_by_role("region", name="Verdict of my-detector")
    verdict.wait_for(timeout=120_000)
    text = verdict.inner_text()
    assert "The start passes as genuine" in text
    assert re.search(
        r"about the first 0\.5\ss of 10:00\. Later, [\d,]+ of 1,199 windows lean fake, first the one from", text
    )
    assert re.search(r"Over time: [\d,]+ of 1,200 windows lean fake", text)


@pytest.mark.slow
def test_a_long_recording_is_cancelled(browser, make_page, make_scorer, examples, tmp_path):
    scorer, go_on = make_scorer(batch_size=4), threading.Event()
    n_passes = []
    scorer.model.register_forward_pre_hook(lambda *_: n_passes.append(go_on.wait(0.2)))
    site = make_page({"slow-detector": scorer}, max_mb=20).local_url
    write_long(tmp_path / "long.ogg", examples)
    with visit(browser, site) as page:
        choose(page, tmp_path / "long.ogg")
        is_loaded(page)
        cancel = page.get_by_role("button", name="Cancel")
        assert cancel.is_disabled()
        check(page)
        page.get_by_text(re.compile(r"[1-9]\d? %")).wait_for()
        cancel.click()
        status(page, "Cancelled. There is no verdict.")
        assert page.locator(".verdict").count() == 0
        assert cancel.is_disabled()
        done = len(n_passes)
        page.wait_for_timeout(1000)
        assert len(n_passes) <= done + 1 < 300
        go_on.set()
        check(page)  # it can be tried again
        page.locator(".verdict").wait_for(timeout=120_000)


@pytest.mark.slow
def test_keyboard_only(person):
    def tab_to(name):
        for _ in range(40):
            person.keyboard.press("Tab")
            focused = person.evaluate(
                "document.activeElement.matches('button, summary') && document.activeElement.innerText"
            )
            if focused and name in focused:
                return
        raise AssertionError(f"{name} is not reached with Tab")

    person.on("filechooser", lambda chooser: None)  # from now on, because playwright takes a moment to intercept it
    tab_to("Drop Audio Here")
    with person.expect_file_chooser():
        person.keyboard.press("Enter")
    tab_to("Fake speech")
    person.keyboard.press("Enter")
    is_loaded(person)
    tab_to(CHECK)
    person.keyboard.press("Enter")
    status(person, "Flagged as fake.")
    tab_to("Prior, costs")
    person.keyboard.press("Enter")
    person.get_by_label("number input for Undecided within").focus()
    person.keyboard.press("Control+a")
    person.keyboard.type("10")
    person.keyboard.press("Tab")
    status(person, "Undecided.")
    person.get_by_label("Cost of letting a fake pass").fill("")
    person.keyboard.press("Tab")
    status(person, "The prior must be between 0 and 100, the costs above 0")
    tab_to("Scores as a table")
    person.keyboard.press("Enter")
    person.get_by_role("columnheader", name="LLR").wait_for()


@pytest.mark.slow
def test_a_recording_of_the_microphone(person):
    person.get_by_role("button", name="Record audio").click()
    person.get_by_role("button", name="Record", exact=True).click()
    person.wait_for_timeout(1500)
    with person.expect_response("**/gradio_api/run/**"):  # Play is there before the recording is sent
        person.get_by_role("button", name="Stop").click()
    is_loaded(person)
    check(person)
    person.locator(".verdict").wait_for()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.long)])
def test_several_models_on_a_phone(browser, make_page, scorer, uncalibrated, scheme):
    names = {"a-detector": scorer, "an/" + "unusually_long_name_" * 5: uncalibrated, "<b>third</b>": scorer}
    site = make_page(names).local_url
    with visit(browser, site, viewport={"width": 390, "height": 844}, color_scheme=scheme) as page:
        page.get_by_role("button", name="Genuine, then fake").click()
        is_loaded(page)
        check(page)
        page.locator(".verdict").nth(2).wait_for()
        status(page, "All 3 models say genuine. For some, that changes later.")
        for summary in page.locator("summary").all():
            summary.click()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        text = page.locator("#results").inner_text()
        assert "<b>third</b>" in text
        assert "There is no probability, because this model is not calibrated" in text
        assert "hf-gradalign calibrate SCORES KEYS --model an/" in text
        boxes = [box.bounding_box() for box in page.locator(".verdict").all()]
        assert all(box["x"] == boxes[0]["x"] for box in boxes)  # one below the other
