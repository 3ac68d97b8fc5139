"""What an operator can choose, and how it is said."""

from lambstead.config.durations import duration_text, parse_duration
from lambstead.config.settings import PROFILES, Settings
from lambstead.config.sources import SettingsError

__all__ = ["PROFILES", "Settings", "SettingsError", "duration_text", "parse_duration"]
