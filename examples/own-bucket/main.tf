# Files are taken from a bucket that was there before, under /etl/stats, by EventBridge. The stack has
# none of its own.

provider "aws" {
  region = "us-east-1"
}

variable "ddg_api_key" {
  type      = string
  default   = null # destroy needs none
  sensitive = true
}

variable "bucket" {
  type        = string
  description = "The bucket's name. It is given and not read from a resource, since a plan must know it."
  default     = "acme-data-123456789012"
}

# In your own Terraform you have these two already: eventbridge = true is all that is added.
resource "aws_s3_bucket" "data" {
  bucket = var.bucket
}

resource "aws_s3_bucket_notification" "data" {
  bucket      = aws_s3_bucket.data.id
  eventbridge = true
}

module "ddg_stats" {
  source = "../.."

  name          = "my-stats"
  ddg_api_key   = var.ddg_api_key
  create_bucket = false

  buckets = {
    (var.bucket) = { prefix = "etl/stats/" }
  }
}

output "producer_policy" {
  value = module.ddg_stats.bucket_steps[var.bucket].producer_policy
}
