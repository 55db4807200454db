"""Rows behind probing: claims, gateway health, recoveries and webhook registrations."""
