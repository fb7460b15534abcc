"""The demo: videos in, decisions and notifications out, in one command."""
