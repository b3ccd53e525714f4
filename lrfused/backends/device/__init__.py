"""What backends that run the schedule on a device share: the host's twin, and its mirrors."""
