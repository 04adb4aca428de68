"""When a worker that has no room calls the others."""

from iidq.queue.processing.call_to_others import CallToOthers


def test_nobody_is_called_without_need() -> None:
    """A worker that takes what there is stays quiet."""
    call = CallToOthers()
    call.claimed(short=True, room=True)
    call.claimed(short=False, room=True)
    assert call.due() is None


def test_calls_keep_their_distance() -> None:
    """However many jobs are announced to a full worker, the others hear of them twenty times a second."""
    call = CallToOthers()
    call.want()
    assert call.due() == 0.0
    call.sent(10.0)
    assert call.due() is None
    call.want()
    assert call.due() == 10.05


def test_a_backlog_is_called_out_once() -> None:
    """The first full claim tells the others; the next ones of the same backlog do not, those of another do."""
    call = CallToOthers()
    called = []
    for short in (False, False, True, False):
        call.claimed(short=short, room=False)
        called.append(call.due() is not None)
        call.sent(0.0)
    assert called == [True, False, False, True]


def test_only_the_first_responder_calls_out_a_backlog() -> None:
    """The others were called by it."""
    call = CallToOthers()
    call.first_responder = False
    call.claimed(short=False, room=False)
    assert call.due() is None
    call.first_responder = True
    call.claimed(short=False, room=False)
    assert call.due() is not None
