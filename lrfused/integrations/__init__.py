"""Where lrfused meets the rest of torch: step hooks, torch.compile, backward, process groups."""
