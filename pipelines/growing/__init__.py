"""What a job takes over of earlier results: appending to one, and the exchange of old for new."""
