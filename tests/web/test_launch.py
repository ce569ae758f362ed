import json
import signal

import pytest

from precis.web import launch


@pytest.mark.parametrize(("stops", "code"), [(0, 0), (1, 130)])
def test_a_stop_that_came_while_the_process_began_is_heeded(tmp_path, monkeypatch, stops, code):
    """A site in the background has its processes ignore the signal until they ask for it; the record tells them."""
    ran: list[dict] = []
    monkeypatch.setattr(launch, "_do", lambda record: ran.append(record) or 0)
    job = tmp_path / "job.json"
    job.write_text(json.dumps({"id": "one", "kind": "run", "argv": [], "stops": stops}))
    before = signal.getsignal(signal.SIGINT)
    try:
        assert launch.main(job) == code
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(ran) == (stops == 0) and json.loads(job.with_suffix(".exit").read_text()) == {"code": code}
