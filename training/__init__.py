"""What only train.py needs: data sets, augmentation, and the training loop."""
