"""Telling people of incidents."""
