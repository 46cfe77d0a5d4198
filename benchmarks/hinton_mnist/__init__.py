"""Section 3 of Hinton, Vinyals and Dean 2015 on the full MNIST."""
