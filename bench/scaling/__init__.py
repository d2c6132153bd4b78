"""What millions of images cost, on paper: measured rates of each stage, and a model of the machines that run them."""
