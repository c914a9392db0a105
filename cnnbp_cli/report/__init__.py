"""Renderers of events and reports: tables for people, JSON and CSV for programs."""
