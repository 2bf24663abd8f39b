import threading

import pytest

from deployments.engines.media.channel import Channel, ChannelClosed


def run(work):
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_channel_hands_over_in_order():
    channel = Channel(2)

    def produce():
        with channel:
            for n in range(50):
                channel.put(n)

    thread = run(produce)
    assert list(channel) == list(range(50))
    thread.join()


def test_channel_passes_the_writers_error_to_the_reader():
    channel = Channel(2)

    def produce():
        with channel:
            channel.put(1)
            raise ValueError("broken")

    def quietly():
        with pytest.raises(ValueError, match="broken"):
            produce()

    run(quietly).join()
    with pytest.raises(ValueError, match="broken"):
        list(channel)


def test_channel_releases_a_waiting_writer_when_the_reader_leaves():
    channel = Channel(1)
    channel.put(1)
    seen = []

    def produce():
        try:
            channel.put(2)
        except ChannelClosed:
            seen.append("closed")

    thread = run(produce)
    channel.close(ChannelClosed())
    thread.join(5)
    assert seen == ["closed"]


def test_channel_is_drained_after_a_normal_close():
    channel = Channel(3)
    channel.put(1)
    channel.close()
    channel.close(ValueError("too late"))
    assert list(channel) == [1]
    with pytest.raises(ChannelClosed):
        channel.put(2)
