"""Rows behind probing: claims, gateway health, recoveries and registrations."""
