# cv.glmnet on one matrix, for the benchmark, the reference numbers and the system test.
# Rscript glmnet.R FOLDER FAMILY MEASURE THRESH [REPEATS]
# FOLDER holds shape.txt (samples genes), X.bin (float64, column by column), y.txt, folds.txt (1, 2, ...) and
# lambdas.txt; it receives largest.txt (the lambda that glmnet itself starts from), cv.txt (lambda, mean, standard error, genes), coef.bin (float64, intercept first, a column a
# lambda) and seconds.txt (one line a repeat).
# With the lambdas given and the path never ended early, every fold is solved at the very same lambdas.
suppressMessages(library(glmnet))
arguments <- commandArgs(TRUE)
setwd(arguments[1])
repeats <- if (length(arguments) > 4) as.integer(arguments[5]) else 1
shape <- scan("shape.txt", quiet = TRUE)
X <- matrix(readBin("X.bin", "double", prod(shape)), nrow = shape[1])
y <- scan("y.txt", quiet = TRUE)
folds <- scan("folds.txt", quiet = TRUE)
lambdas <- scan("lambdas.txt", quiet = TRUE)
write(format(glmnet(X, y, family = arguments[2], nlambda = 5, lambda.min.ratio = 0.8)$lambda[1], digits = 15), "largest.txt")
glmnet.control(fdev = 0, devmax = 1)
seconds <- sapply(seq_len(repeats), function(i) {
  system.time(fit <<- cv.glmnet(X, y, family = arguments[2], type.measure = arguments[3], foldid = folds,
    lambda = lambdas, thresh = as.numeric(arguments[4]), maxit = 1e7))["elapsed"]
})
write(seconds, "seconds.txt", ncolumns = 1)
write.table(cbind(fit$lambda, fit$cvm, fit$cvsd, fit$nzero), "cv.txt", row.names = FALSE, col.names = FALSE)
connection <- file("coef.bin", "wb")
writeBin(as.vector(as.matrix(coef(fit$glmnet.fit))), connection)
close(connection)
writeLines(as.character(packageVersion("glmnet")), "version.txt")
writeLines(format(c(fit$lambda.min, fit$lambda.1se), digits = 15), "chosen.txt")
